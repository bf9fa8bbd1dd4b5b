"""The starter's judges: each measure is asked something whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from starter.recipe.baselines import NGrams
from starter.recipe.evaluate_prompts import wishes
from starter.recipe.manners import FAMILIES, MANNERS
from starter.recipe.measures import (
    chroma_agreement,
    is_silent,
    is_stuck,
    mel_distance,
    onset_f1,
    si_sdr_db,
    tempo_agrees,
    tempo_bpm,
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


def test_tempo() -> None:
    assert tempo_agrees(tempo_bpm(clicks(100), RATE_HZ), 100)
    assert not tempo_agrees(120, 100)
    assert not tempo_agrees(50, 100)
    assert tempo_agrees(50, 100, octaves=True)


def test_silence_and_held_tokens() -> None:
    assert is_silent(np.zeros(1000, np.float32))
    assert not is_silent(tone(440))
    codes = np.random.default_rng(0).integers(0, 16, (4, 200))
    assert not is_stuck(codes)
    assert not is_stuck(np.tile(codes[:, :10], 20))
    codes[:, 90:] = 3
    assert is_stuck(codes)


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
