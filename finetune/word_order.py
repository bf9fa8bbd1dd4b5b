"""The words of a command line in an order that every argparse reads: options first, then `--`, then positionals.

argparse (as of Python 3.13) takes a run of positionals in one piece: a prompt behind an option is "unrecognized", and
what follows `--` can be nothing but positionals, flags included. Here options may stand anywhere, and `--` protects as
many words as the command has places for.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any


def options_first(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The same words, sorted. A word that is no option's name and no option's value is a positional.

    Behind `--` the first words are positionals whatever they look like, until every place is taken; a command that
    takes any number of them takes the rest.
    """
    options, positionals = _parted(parser, list(words))
    return [*options, *(["--"] if positionals else []), *positionals]


def _parted(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    known = {name: action for action in parser._actions for name in action.option_strings}
    places = _places(parser)
    options, positionals = [], []
    while words:
        word = words.pop(0)
        if word == "--":
            n_free = len(words) if places is None else max(0, places - len(positionals))
            positionals += words[:n_free]
            words = words[n_free:]
        elif word in known:
            options += [word, *_values(known, known[word], words)]
        elif _looks_like_option(word):
            options.append(word)  # with its value behind a =, or a mistake that argparse names
        else:
            positionals.append(word)
    return options, positionals


def _values(known: dict[str, Any], action: argparse.Action, words: list[str]) -> Iterator[str]:
    """Take an option's values off the words that follow it."""
    most = {None: 1, "?": 1, 0: 0, "*": len(words), "+": len(words)}.get(action.nargs, action.nargs)
    assert isinstance(most, int)
    while words and most and not (words[0] in known or words[0] == "--" or _looks_like_option(words[0])):
        yield words.pop(0)
        most -= 1


def _looks_like_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and " " not in word and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _places(parser: argparse.ArgumentParser) -> int | None:
    """How many positionals a command takes; None for any number."""
    counts = [action.nargs for action in parser._actions if not action.option_strings]
    if any(count in ("*", "+", "...") for count in counts):
        return None
    return sum(count if isinstance(count, int) else 1 for count in counts)
