"""The flags of one command: its own, and one for every setting of its section, drawn from the settings tree.

jsonargparse declares, explains and collects them. It stops at the first mistake by design, so a setting's flag only
notes the text it was given; `configs.layers` judges all of them together, with the presets and files below them.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, get_args

from jsonargparse import ArgumentParser
from pydantic.fields import FieldInfo

from configs.fields import choices, default_of, expected, is_listing, leaves, nearest
from configs.layers import collect, preset_names, problems_error
from configs.section import Section
from configs.tree import section_type
from finetune.word_order import options_first

LAYER_FLAGS = ("preset", "config", "print_config")


@dataclass
class CommandLine:
    """What a command line says."""

    args: argparse.Namespace
    settings: Section | None
    print_config: bool = False


@dataclass
class Flags:
    """The parser of a command, and the texts its settings' flags were given."""

    parser: ArgumentParser
    section: str | None
    given: dict[str, Any] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Every flag that starts with two dashes, without them."""
        options = (option for action in self.parser._actions for option in action.option_strings)
        return {option[2:] for option in options if option.startswith("--")}


def declare(name: str, summary: str, module: ModuleType) -> Flags:
    """The parser of a command module: see docs/design.md for what such a module holds."""
    section: str | None = module.SECTION
    parser = ArgumentParser(
        prog=f"woodshed {name}",
        description=summary,
        exit_on_error=False,
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.HelpFormatter,  # jsonargparse's own adds "type: <class 'Path'>" to every line
    )
    module.arguments(parser)
    own_usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    flags = Flags(parser, section)
    if section is not None:
        parser.usage = f"{own_usage} [--preset NAME] [--config FILE] [--SETTING VALUE ...]"
        _declare_layers(parser)
        _declare_settings(flags, section_type(section), getattr(module, "ALIASES", {}))
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="store_true", default=argparse.SUPPRESS, help="Show this help.")
    general.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="Show the traceback of an error."
    )
    return flags


def help_text(flags: Flags, examples: str) -> str:
    """The whole help of a command, ending with its examples."""
    lines = "\n".join(f"  {line}".rstrip() for line in examples.strip().splitlines())
    return f"{flags.parser.format_help().rstrip()}\n\nexamples:\n{lines}\n"


def read(flags: Flags, argv: Sequence[str]) -> CommandLine:
    """What the words after a command say, with its settings resolved.

    Raises:
        UserError: with every problem of the command line and of the layers below it.
    """
    known, unknown = _part_unknown(argv, flags.names())
    args, complaint = argparse.Namespace(), ""
    try:
        words = options_first(flags.parser, [word for word in known if word != "--print_config"])
        args = argparse.Namespace(**vars(flags.parser.parse_args(words)))
    except argparse.ArgumentError as error:
        complaint = str(error)
    layers = {name: _last_value(known, f"--{name}") for name in ("preset", "config")} if flags.section else {}
    print_config = flags.section is not None and "--print_config" in known
    settings, problems = _settings(flags, layers, unknown)
    misread = any(word in complaint for word in ("required", "unrecognized")) and (unknown or print_config)
    if complaint and not misread:
        problems.insert(0, _plain(complaint))
    if problems:
        raise problems_error(problems, flags.parser.prog.split()[-1])
    for name in (*LAYER_FLAGS, "help", "debug"):
        vars(args).pop(name, None)
    return CommandLine(args, settings, print_config)


def _plain(complaint: str) -> str:
    """What argparse complains of, in the words of the other messages; its own `--` before positionals left out."""
    start, _, words = complaint.partition(": ")
    if start == "unrecognized arguments":
        return f"not expected here: {words.removeprefix('-- ')}"
    if start == "the following arguments are required":
        return f"missing: {words}"
    return complaint


def _settings(flags: Flags, layers: dict[str, str | None], unknown: dict[str, str]) -> tuple[Section | None, list[str]]:
    if flags.section is not None:
        given = {**flags.given, **unknown}
        return collect(flags.section, layers["preset"], layers["config"], given, flags.names())
    return None, [_unknown_flag(name, flags.names()) for name in unknown]


def _declare_layers(parser: ArgumentParser) -> None:
    group = parser.add_argument_group(
        "settings from files", "defaults < --preset < --config < flags: the later one wins, setting by setting"
    )
    presets = f"Settings for a size of GPU: {', '.join(preset_names())}."
    config = "A YAML file of settings, as --print_config writes it."
    printing = "Print the settings that would be used, as YAML, and stop."
    group.add_argument("--preset", metavar="NAME", default=argparse.SUPPRESS, help=presets)
    group.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=config)
    group.add_argument("--print_config", action="store_true", default=argparse.SUPPRESS, help=printing)


def _declare_settings(flags: Flags, section: type[Section], aliases: dict[str, str]) -> None:
    known = dict(leaves(section))
    if aliases:
        group = flags.parser.add_argument_group("short names")
        for alias, name in aliases.items():
            _declare_one(flags, group, alias, name, metavar_of(known[name]), f"The same as --{name}.")
    grouped: dict[str, Any] = {}
    for name, info in known.items():
        title = name.rpartition(".")[0]
        if title not in grouped:
            grouped[title] = flags.parser.add_argument_group(*_group_words(section, title))
        default = _shown_default(default_of(section, name))
        text = f"{' '.join((info.description or '').split())} ({expected(info)}; default {default})"
        _declare_one(flags, grouped[title], name, name, metavar_of(info), text)


def _declare_one(flags: Flags, group: Any, flag: str, name: str, metavar: str, text: str) -> None:
    class Note(argparse.Action):
        """Notes the text a setting was given, unjudged."""

        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
            flags.given[name] = values

    group.add_argument(
        f"--{flag}", action=Note, default=argparse.SUPPRESS, metavar=metavar, help=text.replace("%", "%%")
    )


def _group_words(section: type[Section], dotted: str) -> tuple[str, str]:
    inner: Any = section
    for name in filter(None, dotted.split(".")):
        inner = inner.model_fields[name].annotation
    return f"{dotted} settings".strip(), " ".join((inner.__doc__ or "").split())


def metavar_of(info: FieldInfo) -> str:
    """A short word for a setting's value in the help."""
    kinds = [part for part in (info.annotation, *get_args(info.annotation)) if part in (bool, int, float)]
    if is_listing(info.annotation):
        return "A,B,…"
    if choices(info.annotation):
        return "NAME"
    return {bool: "true|false", int: "N", float: "X"}[kinds[0]] if kinds else "TEXT"


def _shown_default(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def _part_unknown(argv: Sequence[str], known: set[str]) -> tuple[list[str], dict[str, str]]:
    """Take flags that do not exist out of a command line; a value of theirs stays, and may look like a positional."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    names = {word: word[2:].partition("=")[0] for word in argv[:end] if word.startswith("--")}
    unknown = {name: "" for name in names.values() if name not in known}
    kept = [word for word in argv[:end] if names.get(word) not in unknown]
    return [*kept, *argv[end:]], unknown


def _last_value(argv: Iterable[str], flag: str) -> str | None:
    """The value of a layer's flag, read apart from the parser so that a mistake elsewhere does not hide the layer."""
    value, words = None, list(argv)
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            value = word.partition("=")[2]
        elif word == flag and index + 1 < len(words):
            value = words[index + 1]
    return value


def _unknown_flag(name: str, known: set[str]) -> str:
    close = nearest(name, sorted(known))
    return f"--{name}: there is no such flag" + (f"; did you mean --{close}?" if close else "")
