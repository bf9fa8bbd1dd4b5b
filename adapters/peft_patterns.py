"""Patterns of rank_pattern and alpha_pattern in a stranger's adapter_config.json, matched without a stranger's regex.

peft takes each as a regular expression that must match a tail of a module's name, from a dot on (0.21: utils.other,
get_pattern_key). A crafted one could keep the machine busy for ever. Here a pattern is letters, dots, digits, groups of
plain alternatives and gaps (`.*`), and is matched piece by piece, each at the first place where it fits: in a time that
grows with the square of the name at most.
"""

import re

MAX_LENGTH, MAX_CHOICES = 300, 3
_PIECE = re.compile(
    r"(?P<gap>\.\*|\.\+)|(?P<digits>\\d\+|\[0-9\]\+)|(?P<digit>\\d|\[0-9\])|(?P<dot>\\\.)|(?P<any>\.)"
    r"|(?P<group>\((?:\?:)?[A-Za-z0-9_.\\]+(?:\|[A-Za-z0-9_.\\]+)*\))|(?P<name>[A-Za-z0-9_]+)"
)
_OPTION = re.compile(r"(?:[A-Za-z0-9_]|\\?\.)+")


class ModulePattern:
    """One pattern.

    Raises:
        ValueError: it is more than names, numbers, alternatives and gaps.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ValueError("longer than any module's name")
        self.anchored = text.startswith("^")
        inner = text.removeprefix("^").removesuffix("$")
        pieces, here, position, choices = [], "", 0, 0
        while position < len(inner):
            found = _PIECE.match(inner, position)
            if found is None:
                raise ValueError(f"{inner[position:][:20]!r} is no part of a module's name")
            position = found.end()
            choices += found.lastgroup in ("digits", "group")
            if choices > MAX_CHOICES:
                raise ValueError(f"more than {MAX_CHOICES} numbers and groups")
            if found.lastgroup == "gap":
                pieces.append(here + ("." if found[0] == ".+" else ""))
                here = ""
            else:
                here += _rewritten(found)
        self.pieces = [re.compile(piece) for piece in pieces]
        self.last = re.compile(here + r"\Z")

    def matches(self, module: str) -> bool:
        """Whether it matches a tail of the name, from its start or from behind a dot."""
        starts = [0] + ([] if self.anchored else [dot.end() for dot in re.finditer(r"\.", module)])
        return any(self._matches_from(module, start) for start in starts)

    def _matches_from(self, module: str, start: int) -> bool:
        for number, piece in enumerate(self.pieces):
            found = piece.match(module, start) if number == 0 else piece.search(module, start)
            if found is None:
                return False
            start = found.end()
        return (self.last.search if self.pieces else self.last.match)(module, start) is not None


def _rewritten(found: re.Match[str]) -> str:
    """A piece as a pattern of our own, which takes as little as it can: what a gap may take is left to the gap."""
    kind, text = found.lastgroup, found[0]
    if kind == "digits":
        return r"[0-9]+?"
    if kind == "digit":
        return "[0-9]"
    if kind != "group":
        return text
    options = text[1:-1].removeprefix("?:").split("|")
    if not all(_OPTION.fullmatch(option) for option in options):
        raise ValueError(f"{text[:20]!r} is more than alternatives")
    return f"(?:{'|'.join(sorted(options, key=len))})"
