"""Settings from their layers: defaults < preset < YAML file < flags.

Every layer is judged alone, so that a mistake is named with the layer that made it even where a later layer would have
covered it; then all are judged together. One message holds every problem of every layer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from configs.errors import UserError
from configs.fields import choices, expected, groups, is_listing, leaves, nearest, takes_none
from configs.section import Section
from configs.tree import Settings, section_type
from configs.yaml_file import read_yaml

PRESETS = Path(__file__).parent / "presets"

_LEAVES = dict(leaves(Settings))
_GROUPS = dict(groups(Settings))


@dataclass
class Layer:
    """What one source sets, as differences in the root tree, and how that source is shown."""

    shown: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    section: str = ""
    """The command's section when the layer is the command line: flags are named relative to it."""

    def place(self, dotted: str) -> str:
        """How a setting of this layer is named in a message."""
        if self.section:
            return "--" + dotted.removeprefix(f"{self.section}.")
        line = next((self.lines[name] for name in _upwards(dotted) if name in self.lines), None)
        return f"{dotted} ({self.shown}{'' if line is None else f', line {line}'})"


def preset_names() -> list[str]:
    """Every preset, by size."""
    names = [path.stem for path in PRESETS.glob("*.yaml")]
    return sorted(names, key=lambda name: (not name[0].isdigit(), int("".join(filter(str.isdigit, name)) or 0)))


def resolve(
    section: str,
    preset: str | None = None,
    yaml_file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Section:
    """The settings of one section of the root tree.

    Flags are named relative to the section; a value that is text is read as the command line would.

    Raises:
        UserError: something in any layer is wrong; the message holds all of it.
    """
    settings, problems = collect(section, preset, yaml_file, flags)
    if settings is None:
        raise problems_error(problems, section)
    return settings


def collect(
    section: str,
    preset: str | None = None,
    yaml_file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    known_flags: Iterable[str] = (),
) -> tuple[Section | None, list[str]]:
    """As `resolve`, but hands the problems back. `known_flags` are flags outside the tree, for the nearest name."""
    layers = [_preset_layer(preset)] if preset else []
    layers += [_file_layer(Path(yaml_file))] if yaml_file else []
    layers.append(_flag_layer(section, flags or {}, list(known_flags)))
    problems = [problem for layer in layers for problem in (*layer.problems, *_judge(layer))]
    if problems:
        return None, problems
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer.values)
    try:
        return getattr(Settings.model_validate(merged), section), []
    except ValidationError as error:
        return None, [problem for item in error.errors() for problem in _together(item)]


def _together(item: Any) -> list[str]:
    """Problems of all layers together: settings that contradict each other name themselves."""
    dotted = _dotted(item["loc"])
    return _plain(item).splitlines() if dotted in _GROUPS else [f"{dotted}: {_plain(item)}"]


def problems_error(problems: list[str], command: str) -> UserError:
    """One error out of all problems."""
    listed = "\n".join(f"  {problem}" for problem in problems)
    what = problems[0] if len(problems) == 1 else f"{len(problems)} things to mend:\n{listed}"
    return UserError(what, fix=f"`woodshed {command} --help` explains every setting.")


def _preset_layer(name: str) -> Layer:
    shown = f"preset {name}"
    if name not in preset_names():
        close = nearest(name, preset_names())
        hint = f"did you mean {close}? " if close else ""
        return Layer(shown, problems=[f"--preset {name}: {hint}There are: {', '.join(preset_names())}"])
    read = read_yaml(PRESETS / f"{name}.yaml", shown)
    return Layer(shown, _tidy(read.values), read.lines, read.problems)


def _file_layer(path: Path) -> Layer:
    read = read_yaml(path, str(path))
    return Layer(str(path), _tidy(read.values), read.lines, read.problems)


def _flag_layer(section: str, flags: Mapping[str, Any], known_flags: list[str]) -> Layer:
    layer = Layer("command line", section=section)
    own = dict(leaves(section_type(section)))
    for name, value in flags.items():
        if name not in own:
            layer.problems.append(f"--{name}: {_unknown(name, [*own, *known_flags], '--')}")
            continue
        try:
            given = from_text(own[name], value) if isinstance(value, str) else value
        except yaml.YAMLError:
            layer.problems.append(f"--{name}: must be {expected(own[name])}; {value!r} is no list such as '[a, b]'")
            continue
        *parents, last = f"{section}.{name}".split(".")
        inner = layer.values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = given
    return layer


def from_text(info: FieldInfo, text: str) -> Any:
    """A flag's text as the data a YAML file would hold.

    A list is written `[a, b]` or `a,b`. Free text with a space in it is one entry ("slow ballad, piano" is one prompt).

    Raises:
        yaml.YAMLError: a bracketed list that does not close, or the like.
    """
    if takes_none(info.annotation) and text.lower() in ("null", "none"):
        return None
    if not is_listing(info.annotation):
        return text
    if text.lstrip().startswith("["):
        return yaml.safe_load(text)
    if not choices(info.annotation) and any(map(str.isspace, text)):
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _tidy(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Drop groups that are opened and left empty: they state no difference."""
    tidy: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key)
        dotted = f"{prefix}{name}"
        if dotted in _GROUPS and value is None:
            continue
        tidy[name] = _tidy(value, f"{dotted}.") if dotted in _GROUPS and isinstance(value, Mapping) else value
    return tidy


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value if not isinstance(value, dict) else {}
            if isinstance(value, dict):
                _merge(below[name], value)


def _judge(layer: Layer) -> Iterator[str]:
    """What is wrong with single settings of a layer; what concerns several together is judged after merging."""
    for dotted, value in _given(layer.values):
        if isinstance(value, bool) and _LEAVES[dotted].annotation in (int, float):  # pydantic reads true as 1
            yield f"{layer.place(dotted)}: must be {expected(_LEAVES[dotted])}, not {value!r}"
    try:
        Settings.model_validate(layer.values)
    except ValidationError as error:
        for item in error.errors():
            dotted = _dotted(item["loc"])
            leaf = next((name for name in _upwards(dotted) if name in _LEAVES), None)
            if item["type"] == "extra_forbidden":
                yield f"{layer.place(dotted)}: {_unknown(dotted, [*_LEAVES, *_GROUPS])}"
            elif leaf is not None:
                yield f"{layer.place(dotted)}: {_wrong_value(_LEAVES[leaf], item)}"
            elif item["type"] == "model_type":
                yield f"{layer.place(dotted)}: {_group_text(dotted)}"


def _given(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if f"{prefix}{name}" in _LEAVES:
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping) and f"{prefix}{name}" in _GROUPS:
            yield from _given(value, f"{prefix}{name}.")


def _wrong_value(info: FieldInfo, item: Any) -> str:
    if item["type"] in ("value_error", "assertion_error"):
        return _plain(item)
    text = f"must be {expected(info)}, not {item['input']!r}"
    close = nearest(str(item["input"]), choices(info.annotation)) if item["type"] == "literal_error" else None
    return f"{text}; did you mean {close}?" if close else text


def _unknown(name: str, known: list[str], dashes: str = "") -> str:
    inside = [setting for setting in known if setting.startswith(f"{name}.")]
    if inside:
        return f"is a group of settings; name one of {', '.join(dashes + setting for setting in inside)}"
    close = nearest(name, known)
    return f"there is no such setting; did you mean {dashes}{close}?" if close else "there is no such setting"


def _group_text(dotted: str) -> str:
    fields = _GROUPS[dotted].model_fields if dotted in _GROUPS else Settings.model_fields
    return f"is a group of settings; below it stand {', '.join(fields)}"


def _plain(item: Any) -> str:
    return item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _dotted(loc: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _upwards(dotted: str) -> Iterator[str]:
    """A name, then that of each group around it; an index of a list is left away first."""
    name = dotted.partition("[")[0]
    while name:
        yield name
        name = name.rpartition(".")[0]
