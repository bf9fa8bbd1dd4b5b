"""From numbers to words, the choice of a cell, and what is written down."""

import json
import math
from typing import Any

import numpy as np
import pytest

from adapters import metadata
from configs.errors import UserError
from configs.evaluate import EvaluateSettings
from finetune.judge.findings import Cell, Finding, Verdict, from_json
from finetune.judge.followed import Followed
from finetune.judge.grid import Tried, choose, finalists
from finetune.judge.health import Health
from finetune.judge.intervals import Estimate
from finetune.judge.keep import info_of
from finetune.judge.pictures import grid_pictures
from finetune.judge.plan import FOREIGN, foreign_prompts, plan
from finetune.judge.run_page import with_verdict
from finetune.judge.subject import Candidate
from finetune.judge.trust import pink_noise, trust_of
from finetune.judge.verdict import (
    agreement_finding,
    bare_finding,
    followed_finding,
    forgetting_finding,
    headline,
    health_finding,
    style_finding,
    trust_finding,
)
from finetune.judge.words import verdict_lines

WELL = Health(0.0, 0.0, 0.1, -18.0)


def sure(value: float, half: float = 5.0) -> Estimate:
    return Estimate(float(value), float(value - half), float(value + half), 12)


def cell(step: int, strength: float, gained: float, kl: float, style=None, lost=None, copies: int = 0) -> Cell:
    styled = None if style is None else sure(style)
    return Cell(step, strength, gained, kl, styled, None if lost is None else sure(lost), copies)


def verdict(**more) -> Verdict:
    findings = [
        Finding(
            "style", "Style gained", "It plays 40 % of the way.", "good", sure(40.0), "%", {"kad_base": sure(50.0)}
        ),
        Finding("copying", "Memorised songs", "the longest, at least 2.0 s, is from 'my song.wav'.", "bad"),
    ]
    cells = [cell(10, 1.0, 0.5, 0.1, 40.0, 10.0), cell(20, 1.0, 0.6, 0.2)]
    given: dict[str, Any] = {"name": "x", "base": "starter", "headline": "Good.", "findings": findings, "cells": cells}
    given |= {"choice": "because", "step": 10, "strength": 0.75, "embedding": "musicnn", "seconds": 3.0}
    given |= {"settings": EvaluateSettings().model_dump(mode="json")} | more
    return Verdict(**given)


def test_a_verdict_reads_back_as_it_was_written():
    told = verdict(notes=["One song only."])
    assert from_json(told.to_json()) == told
    unknown = Finding("style", "Style", "?", "notice", Estimate(math.nan, -math.inf, math.inf, 1))
    text = verdict(findings=[unknown]).to_json()
    assert "NaN" not in text and "Infinity" not in text
    back = from_json(text)["style"].estimate
    assert back is not None and math.isnan(back.value) and back.high == math.inf
    for wrong in ("[]", '{"format": "x"}', text.replace('"format_version": 1', '"format_version": 2')):
        with pytest.raises(ValueError, match="verdict"):
            from_json(wrong)


def test_the_finalists_lie_along_the_front():
    cells = [cell(n, s, n * s / 100, (n * s / 100) ** 2) for n in (20, 40, 60, 80, 100) for s in (0.5, 1.0)]
    worse = cell(99, 1.0, 0.8, 2.0)
    tried = [Tried(one, Candidate(one.step, {})) for one in [*cells, worse]]
    chosen = finalists(tried, 3)
    assert chosen[0].cell.gained_nats == 1.0 and chosen[-1].cell.gained_nats == pytest.approx(0.6)
    assert worse not in [one.cell for one in chosen]
    assert len(finalists(tried, 100)) == len(tried)
    assert len(finalists(tried[:1], 3)) == 1


def test_the_choice_weighs_style_against_forgetting_and_rules_copies_out():
    heard = [cell(1, 0.5, 0.2, 0.1, 30, 5), cell(2, 1.0, 0.5, 0.4, 60, 50), cell(3, 0.75, 0.4, 0.2, 50, 12)]
    best, why = choose(heard)
    assert (best.step, best.chosen) == (3, True) and "gains 50 %" in why and "forgets 12 %" in why
    copying = [*heard[:2], cell(3, 0.75, 0.4, 0.2, 90, 0, copies=2)]
    best, why = choose(copying)
    assert best.step == 1 and "ruled out" in why
    blind, why = choose([cell(1, 0.5, 0.2, 0.1), cell(2, 1.0, 0.5, 0.4)])
    assert blind.step == 2 and "could not be measured" in why
    close, why = choose([cell(1, 0.5, 0.2, 0.1, 30, 5), cell(2, 1.0, 0.5, 0.4, 31, 5)])
    assert close.step == 2 and "within its interval" in why
    unscaled, why = choose([cell(1, 0.5, 0.2, 0.1, 30), cell(2, 1.0, 0.5, 0.4, 60)])
    assert unscaled.step == 2 and "what it forgets could not be measured" in why


def test_style_in_words():
    assert style_finding(sure(45), {}, True).level == "good"
    small = style_finding(sure(12), {}, True)
    assert small.level == "notice" and "small" in small.text
    assert "chance" in style_finding(sure(3), {}, True).text
    assert "failed its check" in style_finding(sure(45), {}, False).text
    assert "could not be measured" in style_finding(None, {}, True).text
    assert "as near as" in style_finding(Estimate(math.nan, -math.inf, math.inf, 2), {}, True).text


def test_the_trigger_in_words():
    assert bare_finding(None, sure(40)) is None
    quiet, loud = bare_finding(sure(2), sure(40)), bare_finding(sure(35), sure(40))
    blurred = bare_finding(sure(20, 60), sure(40))
    assert blurred is not None and blurred.level == "plain" and "too wide" in blurred.text
    assert quiet is not None and quiet.level == "good"
    assert loud is not None and loud.level == "notice" and "without being called" in loud.text


def test_forgetting_in_words():
    kl = sure(0.1, 0.02)
    levels = [forgetting_finding(sure(value), kl, True).level for value in (5.0, 25.0, 80.0)]
    assert levels == ["good", "notice", "bad"]
    assert forgetting_finding(sure(5), sure(2.6, 0.1), True).level == "notice"
    assert (
        forgetting_finding(sure(3.0), kl, False).unit == "KAD" and forgetting_finding(None, kl, True).level == "notice"
    )
    assert "Forgetting is 0 %" in forgetting_finding(sure(-4.0), kl, True).text


def test_prompts_in_words():
    right, wrong = [Followed(True, None)] * 20, [Followed(False, None)] * 20
    worse, same = followed_finding(right, wrong), followed_finding(right, right)
    assert worse is not None and worse.level == "notice" and same is not None and same.level == "good"
    assert followed_finding([Followed(None, None)], [Followed(None, None)]) is None
    rng = np.random.default_rng(0)
    base = rng.normal(size=20)
    falls = agreement_finding("tags", base, base - 1 + 0.1 * rng.normal(size=20))
    assert falls is not None and falls.level == "notice" and "falls" in falls.text
    still = agreement_finding("tags", base, base.copy())
    assert still is not None and "about the same" in still.text
    assert agreement_finding("tags", np.full(4, np.nan), np.zeros(4)) is None


def test_health_in_words():
    alive = np.ones(4)
    assert health_finding([WELL] * 4, [WELL] * 4, alive, alive).level == "good"
    ill = {
        "silent": Health(0.9, 0.0, 0.1, None),
        "clipped": Health(0.0, 0.2, 0.1, -3.0),
        "stuck in a loop": Health(0.0, 0.0, 0.95, -18.0),
    }
    for words, one in ill.items():
        found = health_finding([WELL] * 4, [one] * 2 + [WELL] * 2, alive, alive)
        assert found.level == "bad" and f"2 of 4 pieces are {words}" in found.text.lower()
        assert health_finding([one] * 4, [one] * 4, alive, alive).level == "good"  # no worse than the base
    collapsed = health_finding([WELL] * 4, [WELL] * 4, alive, 0.2 * alive)
    assert collapsed.level == "bad" and "nearly one piece" in collapsed.text


def test_the_headline_puts_copies_first():
    good = [style_finding(sure(45), {}, True), forgetting_finding(sure(5), sure(0.1), True)]
    clean = Finding("copying", "Memorised songs", "No copying was found.", "good")
    assert headline([*good, clean]) == (
        "It has come 45 % of the way to your music, it has forgotten 5 % of the rest, no copying was found."
    )
    assert headline([*good, Finding("copying", "Memorised songs", "It has.", "bad")]).startswith("Do not share")
    ill = Finding("health", "Health", "Silent.", "bad")
    assert headline([*good, clean, ill]).endswith("Also look at: health.")
    assert "no gain in style" in headline([style_finding(sure(2), {}, True)]).lower()


def test_trust_needs_the_order_to_come_out():
    rng = np.random.default_rng(0)
    mine = rng.normal(size=(24, 4))
    tracks = [f"t{n // 4}" for n in range(24)]
    far = trust_of(mine, tracks, rng.normal(size=(12, 4)) + 2, rng.normal(size=(12, 4)) + 5)
    assert far.holds and trust_finding(far, "musicnn", False).level == "good"
    deaf = trust_of(mine, tracks, rng.normal(size=(12, 4)), rng.normal(size=(12, 4)))
    assert not deaf.holds and "do not believe" in trust_finding(deaf, "musicnn", True).text
    assert trust_of(mine, ["one"] * 24, mine[:6] + 3, mine[:6] + 9).holds


def test_pink_noise_falls_with_frequency():
    power = np.square(np.abs(np.fft.rfft(pink_noise(2**15, 1, 0)[0])))
    assert power[100:200].sum() == pytest.approx(power[1600:3200].sum(), rel=0.4)  # as much in every octave


def test_the_plan_asks_the_same_of_everybody():
    settings = EvaluateSettings(pieces=8)
    asks = plan(settings, ["piano, mine", "guitar, mine"], "mine", ["taught, mine"])
    kinds = [ask.kind for ask in asks]
    assert [kinds.count(kind) for kind in ("own", "bare", "foreign", "taught")] == [8, 4, 8, 4]
    assert len({ask.seed for ask in asks}) == len(asks)
    assert {ask.prompt for ask in asks if ask.kind == "bare"} == {"piano", "guitar"}
    assert len({ask.prompt for ask in asks if ask.kind == "foreign"}) == 4  # each from two seeds
    assert [ask.kind for ask in plan(settings, ["piano"], "")].count("bare") == 0
    own = plan(EvaluateSettings(pieces=2, prompts=["given"]), ["other"], "")
    assert {ask.prompt for ask in own if ask.kind == "own"} == {"given"}


def test_plans_that_ask_for_nothing_or_the_wrong_thing():
    with pytest.raises(UserError, match="no prompt to evaluate with"):
        plan(EvaluateSettings(), ["  "], "mine")
    with pytest.raises(UserError, match="says the trigger"):
        foreign_prompts(EvaluateSettings(foreign_prompts=["fast rock, mine"]), "mine")
    with pytest.raises(ValueError, match="prompts"):
        EvaluateSettings(prompts=[" "])
    assert foreign_prompts(EvaluateSettings(), "slow ambient") == [p for p in FOREIGN if "slow ambient" not in p]


def test_what_travels_with_the_adapter_names_no_song():
    info = info_of(verdict())
    assert "my song" not in info.model_dump_json() and "from one of them" in info.findings[1].text
    assert info.findings[0].interval == (40.0, 35.0, 45.0) and info.pieces == 12
    for name in ("it's mine.wav", 'the "hit".wav', 'it\'s the "hit" \\.wav'):
        text = f"the longest, at least 2.0 s, is from {name!r}; more"
        told = info_of(verdict(findings=[Finding("copying", "Memorised songs", text, "bad")])).findings[0].text
        assert told == "the longest, at least 2.0 s, is from one of them; more"
    told = json.loads(metadata.EvaluationInfo.model_validate_json(info.model_dump_json()).model_dump_json())
    assert told["headline"] == "Good."


def test_pictures_and_lines():
    told = verdict()
    assert [title.split(",")[0] for title, _ in grid_pictures(told.cells)] == [
        "Style gained against forgetting",
        "Every checkpoint and strength",
    ]
    assert grid_pictures([cell(1, 1.0, 0.1, 0.1)]) == []
    lines = list(verdict_lines(told))
    assert lines[0] == "Good." and any(line.startswith("! Memorised") for line in lines)


def test_the_verdict_on_a_run_page_replaces_an_older_one():
    page = "<header>\n</header>\n<p>rest</p>"
    once = with_verdict(page, "<b>one</b>")
    assert "</header>\n<!-- verdict --><b>one</b>" in once
    twice = with_verdict(once, "<b>two</b>")
    assert "two" in twice and "one" not in twice and twice.endswith("<p>rest</p>")
    assert with_verdict("no header", "x") == "no header"
