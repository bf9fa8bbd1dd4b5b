"""Options may stand anywhere among positionals, and `--` protects names that begin with a dash."""

import argparse
from importlib import import_module
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from configs.errors import UserError
from finetune.cli import COMMANDS
from finetune.flags import declare, read
from finetune.word_order import options_first


def line(command: str, *words: str) -> Any:
    return read(declare(command, COMMANDS[command], import_module(f"finetune.commands.{command}")), words)


def test_options_between_prompts() -> None:
    parts = [["ADAPTER"], ["--strength", "0"], ["p1", "p2"], ["--seed=3"], ["--play"]]
    declared = declare("sample", COMMANDS["sample"], import_module("finetune.commands.sample"))
    for order in permutations(parts):
        found = read(declared, [word for part in order for word in part])
        assert sorted(found.args.words) == ["ADAPTER", "p1", "p2"], order
        assert (found.args.strength, getattr(found.settings, "seed", None), found.args.play) == ("0", 3, True)


@pytest.mark.parametrize(
    "words",
    [
        ["--base", "debug", "--", "-songs", "out"],
        ["--", "-songs", "out", "--base", "debug"],
        ["--base", "debug", "out0", "--", "-songs"],
        ["--", "-songs", "--base", "--base", "debug"],  # a folder of that name, then the option
    ],
)
def test_names_that_begin_with_a_dash(words: list[str]) -> None:
    found = line("prep", *words)
    assert "-songs" in (str(found.args.songs), str(found.args.out)) and found.settings.base == "debug"


def test_behind_two_dashes_a_prompt_may_look_like_anything() -> None:
    found = line("sample", "--base", "debug", "--", "--play", "-x", "--", "--seed")
    assert found.args.words == ["--play", "-x", "--", "--seed"] and found.args.play is False


def test_lists_negative_numbers_and_mistakes() -> None:
    found = line("sample", "A", "--story", "0:00 a", "0:15 b", "--strength", "-1", "p")
    assert found.args.story == ["0:00 a", "0:15 b"] and found.args.strength == "-1" and found.args.words == ["A", "p"]
    assert line("prep", "songs", "--segment.silence_db", "-60", "out").settings.segment.silence_db == -60
    assert line("blend", "a", "--out", "o", "b@-0.5").args.adapters == ["a", "b@-0.5"]
    for words, expected in (
        (["prep", "songs"], "out"),
        (["prep", "songs", "out", "more"], "more"),
        (["sample", "x", "--out"], "--out"),
        (["sample", "x", "--strength", "--play"], "--strength"),
        (["merge", "a", "out", "-x"], "-x"),
        (["convert", "a", "--to", "midi", "--out", "b"], "midi"),
        (["prep", "songs", "out", "--bsae", "debug"], "base"),
    ):
        with pytest.raises(UserError, match=expected):
            line(*words)


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False, add_help=False)
    made.add_argument("first")
    made.add_argument("rest", nargs="*")
    made.add_argument("--one")
    made.add_argument("--flag", action="store_true")
    made.add_argument("--some", action="append")
    return made


@given(
    st.lists(st.sampled_from([["--one", "1"], ["--one=1"], ["--flag"], ["--some", "a"], ["--some", "-2"]])),
    st.lists(st.text("ab -", min_size=1).filter(lambda text: not text.startswith("-")), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_any_order_means_the_same(options, names, random) -> None:
    mixed = [*options, *([name] for name in names)]
    kept = iter(names)
    random.shuffle(mixed)
    words = [word for part in mixed for word in ([next(kept)] if part[0] in names and len(part) == 1 else part)]
    args: argparse.Namespace = parser().parse_args(options_first(parser(), words))
    assert [args.first, *args.rest] == names
    somes = [part[1] for part in mixed if part[0] == "--some"]
    assert (args.some or []) == somes and args.flag == (["--flag"] in options)
