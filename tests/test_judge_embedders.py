"""The built-in embedder hears what it should, and prompts are read as people write them."""

import numpy as np
import pytest

from configs.errors import UserError
from finetune.judge.agreements import TagAgreement, agreements_for, names
from finetune.judge.distances import kad
from finetune.judge.embedders import Embedder, Scaled, Spectrum, embedder
from finetune.judge.followed import asked_key, asked_tempo, follows, tempo_agrees

RATE = 16_000


def tones(seed: int, hz: float, level: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(2 * RATE) / RATE
    wave = sum(rng.uniform(0.3, 1) * np.sin(2 * np.pi * hz * k * time + rng.uniform(0, 6)) for k in range(1, 5))
    return (level * np.asarray(wave) + 0.003 * rng.normal(size=len(time)))[None].astype(np.float32)


def test_alike_is_near_and_other_music_and_noise_are_far():
    ear = Spectrum()
    mine, more = ([tones(seed, 220) for seed in range(a, a + 10)] for a in (0, 10))
    other = [tones(seed, 700) for seed in range(20, 30)]
    noise = [0.1 * np.random.default_rng(seed).normal(size=(1, 2 * RATE)).astype(np.float32) for seed in range(10)]
    reference = ear.embed(mine, RATE)
    scaled = Scaled(ear, reference)
    rows = [scaled.embed(these, RATE) for these in (mine, more, other, noise)]
    same, moved, far = (kad(rows[i], rows[0], seed=0) for i in (1, 2, 3))
    assert same.low <= 0 <= same.high and same.high < moved.low and moved.value <= far.value + 1


def test_level_is_not_heard_and_rows_do_not_depend_on_company():
    ear = Spectrum()
    loud, soft = tones(0, 220, 0.4), tones(0, 220, 0.2)
    together = ear.embed([loud, soft], RATE)
    assert np.abs(together[0, :64] - together[1, :64]).max() < 0.6
    assert together[1] == pytest.approx(ear.embed([soft], RATE)[0])
    assert np.isfinite(ear.embed([np.zeros((2, RATE), np.float32)], RATE)).all()


def test_embedders_by_name():
    ear = embedder("auto")
    assert isinstance(ear, Embedder) and ear.name == "musicnn" and embedder("spectrum").name == "spectrum"
    rows = ear.embed([tones(0, 220).repeat(2, axis=1), tones(1, 220).repeat(2, axis=1)], RATE)
    assert rows.dtype == np.float64 and len(rows) == 2 and np.isfinite(rows).all()
    with pytest.raises(UserError, match="no embedder 'vggish'"):
        embedder("vggish")


@pytest.mark.parametrize(
    ("text", "bpm", "key"),
    [
        ("fast rock, 136 bpm", 136.0, None),
        ("ballad in A minor, 72.5 BPM", 72.5, (9, True)),
        ("in C sharp minor", None, (1, True)),
        ("in E flat major", None, (3, False)),
        ("Bb major funk", None, (10, False)),
        ("C# minor", None, (1, True)),
        ("a major hit with 5 bpm", None, None),
        ("in a minor", None, (9, True)),
        ("slow piano", None, None),
    ],
)
def test_what_a_prompt_asks_for(text, bpm, key):
    assert asked_tempo(text) == bpm and asked_key(text) == key


def test_tempo_agrees_with_its_octaves():
    assert all(tempo_agrees(found, 120.0) for found in (120.0, 127.0, 62.0, 238.0)) and not tempo_agrees(135.0, 120.0)


def clicks(bpm: float) -> np.ndarray:
    audio = np.zeros(8 * RATE, np.float32)
    click = np.hanning(400) * np.sin(np.arange(400) / 3)
    for beat in np.arange(0.0, 7.9, 60 / bpm):
        audio[int(beat * RATE) : int(beat * RATE) + 400] += 0.5 * click
    return audio[None]


def test_a_click_track_follows_its_tempo_and_no_other():
    assert follows(clicks(100), "clicks, 100 bpm", RATE).tempo is True
    assert follows(clicks(100), "clicks, 134 bpm", RATE).tempo is False
    assert follows(clicks(100), "clicks", RATE).tempo is None


def test_a_chord_follows_its_key():
    time = np.arange(6 * RATE) / RATE
    scale = [0, 2, 3, 5, 7, 8, 10]  # A minor
    notes = [220 * 2 ** (step / 12) for step in (*scale, 0, 7, 3, 0, 0)]
    wave = np.concatenate([np.sin(2 * np.pi * hz * time[: RATE // 2]) for hz in notes])[None].astype(np.float32)
    assert follows(wave, "in A minor", RATE).key is True and follows(wave, "in C major", RATE).key is True
    assert follows(wave, "in B major", RATE).key is False


def test_tags_that_a_prompt_names():
    assert names("slow ballad, piano, with drums", "drums") and names("Solo Piano", "piano")
    assert not names("ballad, no drums", "drums") and not names("ballad without drums", "drums")
    assert not names("pianola", "piano")


def test_tags_agree_more_with_the_prompt_that_fits():
    beats = np.concatenate([clicks(120)] * 1, axis=1) + 0.001 * np.random.default_rng(0).normal(size=(1, 8 * RATE))
    hum = np.sin(2 * np.pi * 220 * np.arange(8 * RATE) / RATE)[None]
    judge = TagAgreement()
    pieces = [one.astype(np.float32) for one in (beats, hum)]
    found = judge.agree(pieces, ["fast drums"] * 2, RATE)
    assert found[0] > found[1] and np.isnan(judge.agree(pieces[:1], ["something"], RATE)).all()
    assert [one.name for one in agreements_for("auto")] == ["musicnn's tags"] and agreements_for("spectrum") == []
