"""What can be said of a settings class without an instance: its leaves, the values they take, the nearest name.

It knows nothing of files or flags; `configs.layers` and the command line's help both read it.
"""

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from configs.section import Section


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Whether a field's type is itself a group of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every single setting below a section, with its dotted name, in the order of declaration."""
    for name, info in section.model_fields.items():
        if is_section(info.annotation):
            yield from leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def default_of(section: type[Section], dotted: str) -> Any:
    """The default of one leaf as the whole section has it: a parent may set another than the leaf's own class."""
    value: Any = section()
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def groups(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every group of settings below a section, with its dotted name."""
    for name, info in section.model_fields.items():
        if is_section(info.annotation):
            yield f"{prefix}{name}", info.annotation
            yield from groups(info.annotation, f"{prefix}{name}.")


def is_listing(annotation: Any) -> bool:
    """Whether a setting takes several values."""
    return get_origin(annotation) in (list, tuple)


def takes_none(annotation: Any) -> bool:
    """Whether a setting may be left without a value."""
    return type(None) in get_args(annotation)


def choices(annotation: Any) -> tuple[str, ...]:
    """The fixed values of a setting, or of a list's entries; empty when it is free."""
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    if is_listing(annotation) or get_origin(annotation) in (Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := choices(part))), ())
    return ()


def expected(info: FieldInfo) -> str:
    """The values a setting takes, in words: "a whole number from 1 to 512"."""
    return _type_words(info.annotation) + _range_words(info) + (" or null" if takes_none(info.annotation) else "")


def _type_words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(choices(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(map(_type_words, parts))
    if get_origin(annotation) is Annotated:
        return expected(FieldInfo.from_annotation(annotation))
    if get_origin(annotation) is list:
        return "a list, each " + _type_words(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return "a list of " + ", ".join(map(_type_words, get_args(annotation)))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _range_words(info: FieldInfo) -> str:
    low = high = ""
    for limit in info.metadata:
        match limit:
            case annotated_types.Ge(ge=bound):
                low = f"from {bound}"
            case annotated_types.Gt(gt=bound):
                low = f"above {bound}"
            case annotated_types.Le(le=bound):
                high = f"to {bound}"
            case annotated_types.Lt(lt=bound):
                high = f"below {bound}"
            case _:
                pass
    if high.startswith("to") and not low.startswith("from"):
        high = high.replace("to", "up to", 1)
    if low.startswith("from") and not high:
        low = low.removeprefix("from ") + " or more"
    if low.startswith("from") and high.startswith("below"):
        high = f"to {high}"
    joint = " and " if low.startswith("above") else " "
    words = joint.join(part for part in (low, high) if part)
    return f" {words}" if words else ""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The valid name most like a mistyped one; a right last part in the wrong place counts as alike."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    last = {known.rpartition(".")[2]: known for known in reversed(names)}
    tail = difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.6)
    return last[tail[0]] if tail else None
