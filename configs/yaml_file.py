"""Reads a YAML file of settings: plain data only, with the line of every key, and nothing in it is ever run.

It does not know which settings exist; `configs.layers` judges that.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class YamlFile:
    """What a file says, where it says it, and what is wrong with it as YAML."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted name → line, from 1."""
    problems: list[str] = field(default_factory=list)


def read_yaml(path: Path, shown: str) -> YamlFile:
    """Read a file; whatever is wrong with it ends up in `problems`, beginning with `shown`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return YamlFile(problems=[f"{shown}: there is no such file"])
    except (OSError, UnicodeDecodeError) as error:
        return YamlFile(problems=[f"{shown}: cannot be read as text ({error})"])
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown: str) -> YamlFile:
    """Parse YAML text whose root is a mapping; an empty text is an empty mapping."""
    found = YamlFile()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return found
        if not isinstance(node, yaml.MappingNode):
            found.problems.append(f"{shown}: must hold sections such as `train:`, not a {_kind(node)}")
            return found
        _walk(node, "", found, shown, seen=set())
        # A text that names no type of its own is read by the safe loader: `!!python/…` tags are refused there.
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        found.problems.append(f"{shown}: is not plain YAML ({_first_line(error)})")
        return found
    found.values = values
    return found


def _walk(node: yaml.MappingNode, prefix: str, found: YamlFile, shown: str, seen: set[int]) -> None:
    """Note the line of every key below a mapping, and keys that stand twice, of which YAML would drop one silently."""
    if id(node) in seen:
        return
    seen.add(id(node))
    first: dict[str, int] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in first:
            found.problems.append(f"{name} ({shown}, line {line}): stands twice, first on line {first[name]}")
        first.setdefault(name, line)
        found.lines.setdefault(name, line)
        if isinstance(value, yaml.MappingNode):
            _walk(value, f"{name}.", found, shown, seen)


def _kind(node: yaml.Node) -> str:
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _first_line(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).partition("\n")[0]
