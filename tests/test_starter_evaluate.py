"""The starter's judges: each measure is asked something whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.sampler import Take
from finetune.judge.followed import follows
from finetune.judge.health import check
from starter.recipe.baselines import NGrams
from starter.recipe.evaluate_prompts import Wish, measured, wishes
from starter.recipe.manners import FAMILIES, MANNERS
from starter.recipe.measures import (
    chroma_agreement,
    mel_distance,
    onset_f1,
    si_sdr_db,
)
from starter.recipe.probe import Probe, accuracy, features

RATE_HZ = 16_000


def tone(hz: float, sec: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(sec * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def clicks(bpm: float, sec: float = 8.0) -> np.ndarray:
    audio = np.zeros(round(sec * RATE_HZ), np.float32)
    burst = np.random.default_rng(0).normal(size=800).astype(np.float32) * np.exp(-np.arange(800) / 150)
    for at in np.arange(0.2, sec - 0.1, 60 / bpm):
        audio[round(at * RATE_HZ) :][:800] += burst[: len(audio) - round(at * RATE_HZ)]
    return 0.3 * audio


def test_distances_of_equal_and_of_different_sounds() -> None:
    noise = 0.03 * np.random.default_rng(0).normal(size=2 * RATE_HZ).astype(np.float32)
    a = tone(440)
    assert mel_distance(a, a, RATE_HZ) == 0
    assert mel_distance(a + noise, a, RATE_HZ) > 0.3
    assert si_sdr_db(2 * a, a) > 60
    assert si_sdr_db(a + noise, a) == pytest.approx(10 * np.log10(0.045 / 0.0009), abs=0.3)
    assert chroma_agreement(a + noise, a, RATE_HZ) > 0.9
    assert chroma_agreement(tone(311.1), a, RATE_HZ) < 0.3


def test_onsets_within_50_ms() -> None:
    beats = clicks(120)
    assert onset_f1(beats, beats, RATE_HZ) == 1
    assert onset_f1(np.roll(beats, RATE_HZ // 50), beats, RATE_HZ) > 0.9
    assert onset_f1(np.roll(beats, RATE_HZ // 5), beats, RATE_HZ) < 0.2


def test_both_evaluations_measure_the_same() -> None:
    """Silence, loops and tempo of the same pieces, by the recipe and as `woodshed evaluate` measures them."""
    rng = np.random.default_rng(0)
    free, held = rng.integers(0, 16, (4, 400)), rng.integers(0, 16, (4, 400))
    held[:, 180:] = 3
    played = [(clicks(100), free), (clicks(140), free), (clicks(140), held), (np.zeros(8 * RATE_HZ, np.float32), held)]
    takes = [Take(torch.from_numpy(audio[None]), codes.astype(np.int16)) for audio, codes in played]
    asked = [Wish("piano", False, bpm, "pop") for bpm in (100, 100, 70, 70)]
    heard = torch.stack([features(audio, RATE_HZ) for audio, _ in played])
    probe = Probe(heard, {"family": ["piano", "organ", "organ", "organ"], "drums": ["False"] * 3 + ["True"]}, steps=1)
    found = measured(takes, probe, asked, RATE_HZ, 50.0)
    health = [check(take.waveform.numpy(), take.codes, RATE_HZ, 50.0) for take in takes]
    judged = [follows(t.waveform.numpy(), w.words(), RATE_HZ).tempo for t, w in zip(takes, asked, strict=True)]
    assert found["silent"] == np.mean([one.is_silent for one in health]) == 0.25
    assert found["stuck"] == np.mean([one.is_stuck for one in health]) == 0.5
    assert found["tempo_or_half_or_double"] == np.mean([bool(one) for one in judged]) == 0.5
    assert found["tempo"] == 0.25 and found["generations"] == 4


def test_ngrams_know_what_they_have_seen() -> None:
    cycle = np.tile(np.arange(4, dtype=np.int16), 500)
    grams = NGrams([cycle], card=8)
    assert grams.unigram_nats(cycle) == pytest.approx(np.log(4), abs=0.02)
    assert grams.bigram_nats(cycle) < 0.05
    backwards = np.ascontiguousarray(cycle[::-1])
    assert grams.bigram_nats(backwards) > 5


def test_the_probe_tells_a_hum_from_a_hiss() -> None:
    rng = np.random.default_rng(0)
    heard, names = [], []
    for number in range(40):
        hiss = number % 2 == 0
        audio = 0.1 * rng.normal(size=RATE_HZ).astype(np.float32) if hiss else tone(200 + 10 * number, 1.0)
        heard.append(features(audio, RATE_HZ))
        names.append("hiss" if hiss else "hum")
    probe = Probe(torch.stack(heard[:30]), {"sound": names[:30]}, steps=30)
    said = probe.answers(torch.stack(heard[30:]))["sound"]
    assert accuracy(said, names[30:]) == 1.0


def test_wishes_are_balanced() -> None:
    asked = wishes(64)
    assert {wish.family for wish in asked} == set(FAMILIES)
    assert sum(wish.drums for wish in asked) == 32
    assert "no drums" in wishes(16)[15].words()
    assert len({wish.manner for wish in asked}) > 8
    known = {manner.name: manner for manner in MANNERS}
    for wish in asked:
        low, high = known[wish.manner].tempo_bpm
        assert low <= wish.tempo_bpm <= high
        assert known[wish.manner].drums or not wish.drums
    assert asked[0].words("in my style").endswith(", in my style")
    left_open = replace(asked[0], open=True).words("in my style")
    assert left_open.endswith("bpm, in my style") and asked[0].family not in left_open
