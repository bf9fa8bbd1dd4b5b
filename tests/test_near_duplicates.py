"""Copies of a recording are found whatever was done to them; other music is not taken for one."""

import numpy as np
import pytest
import soundfile
import soxr

from benchmarks.grooves import FAMILIES, RATE_HZ, groove
from data_prep.copies import copies_of
from data_prep.measure import measure
from data_prep.near_duplicates import Pair, groups, is_too_short, near_duplicates
from data_prep.scan import SongFile
from data_prep.sound_print import SoundPrint, sound_print
from data_prep.tracks import Track

SEC = 70.0


def song(index: int) -> np.ndarray:
    """Sections of different grooves, so that it is not one bar over and over."""
    parts = [groove(FAMILIES[(index + 7 * part) % len(FAMILIES)], 100 * index + part, SEC / 4) for part in range(4)]
    return np.concatenate([part.audio for part in parts])


@pytest.fixture(scope="module")
def songs() -> dict[str, np.ndarray]:
    return {f"song {index}": song(index) for index in range(6)}


@pytest.fixture(scope="module")
def prints(songs) -> dict[str, np.ndarray]:
    return {name: sound_print(audio) for name, audio in songs.items()}


def lossy(audio: np.ndarray, tmp_path) -> np.ndarray:
    path = tmp_path / "a.mp3"
    soundfile.write(path, audio, RATE_HZ, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.99)
    return soundfile.read(path, dtype="float32")[0]


SHAPES = {
    "another encode": lossy,
    "quieter and later": lambda a, _: 0.1 * np.concatenate([np.zeros(81_234, np.float32), a])[30_000:],
    "three percent faster": lambda a, _: soxr.resample(a, RATE_HZ * 1.03, RATE_HZ),
    "three percent slower": lambda a, _: soxr.resample(a, RATE_HZ * 0.97, RATE_HZ),
    "faster and encoded": lambda a, tmp_path: lossy(soxr.resample(a, RATE_HZ * 1.015, RATE_HZ), tmp_path),
    "a shorter edit": lambda a, _: np.concatenate([a[: int(0.35 * len(a))], a[int(0.5 * len(a)) :]]),
    "a longer edit": lambda a, _: np.concatenate([a[: len(a) // 2], a[len(a) // 4 :]]),
    "mastered again": lambda a, _: np.tanh(4 * a),
    "with a long introduction": lambda a, _: np.concatenate([song(50)[: int(0.5 * len(a))], a]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_in_another_shape_is_found(songs, prints, tmp_path, shape):
    for name in ("song 0", "song 3"):
        changed = SHAPES[shape](songs[name], tmp_path).astype(np.float32)
        found = near_duplicates({**prints, "copy": sound_print(changed)})
        assert [(pair.first, pair.second) for pair in found] == [(name, "copy")]


@pytest.mark.parametrize("sec", [6.2, 9.0, 16.0, 23.0])
def test_short_copies_are_found(songs, prints, tmp_path, sec):
    """Of a jingle in another shape, and of a stretch of a longer song."""
    n = int(sec * RATE_HZ)
    jingles = {f"jingle {index}": songs[f"song {index}"][20 * RATE_HZ :][:n] for index in (1, 3)}
    others = {name: print_ for name, print_ in prints.items() if name not in ("song 1", "song 3")}
    for shape in ("another encode", "three percent faster", "three percent slower", "mastered again"):
        shorts = {name: sound_print(audio) for name, audio in jingles.items()}
        changed = SHAPES[shape](jingles["jingle 3"], tmp_path).astype(np.float32)
        if len(changed) < 6 * RATE_HZ:
            continue
        found = near_duplicates({**others, **shorts, "copy": sound_print(changed)})
        assert [(pair.first, pair.second) for pair in found] == [("jingle 3", "copy")], shape
        if "percent" in shape and sec < 16:
            continue  # at the edge: some are found in a longer song, some are not
        found = near_duplicates({**prints, "copy": sound_print(changed)})
        assert [(pair.first, pair.second) for pair in found] == [("song 3", "copy")], shape


def test_short_pieces_of_different_songs_are_not_taken_for_copies(songs):
    """Songs 2 and 4 have a groove in common."""
    songs = {name: audio for name, audio in songs.items() if name != "song 4"}
    pieces = {name: sound_print(audio[20 * RATE_HZ : int(27.5 * RATE_HZ)]) for name, audio in songs.items()}
    assert (
        near_duplicates(
            {name: sound_print(a) for name, a in songs.items() if name != "song 2"} | {"p": pieces["song 2"]}
        )
        == []
    )
    assert near_duplicates(pieces) == []


def test_what_is_too_short_is_said():
    tone = np.zeros(6 * RATE_HZ, np.float32)
    assert not is_too_short(sound_print(tone)) and is_too_short(sound_print(tone[: 5 * RATE_HZ]))


def test_different_songs_are_not_taken_for_copies(prints):
    assert near_duplicates(prints) == []


def test_odd_tracks_are_copies_of_nothing(prints):
    tone = np.sin(np.arange(40 * RATE_HZ) * 0.1).astype(np.float32)
    odd = {
        "silence": 0 * tone,
        "tone": tone,
        "short": tone[:1000],
        "short silence": 0 * tone[: 8 * RATE_HZ],
        "short other tone": np.sin(np.arange(8 * RATE_HZ) * 0.17).astype(np.float32),
        "nothing": tone[:0],
    }
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * RATE_HZ).astype(np.float32)
    odd["noise"], odd["other noise"] = noise, noise[::-1].copy()
    assert near_duplicates(prints | {name: sound_print(audio) for name, audio in odd.items()}) == []


def test_pieces_of_any_size_give_the_same_print(songs):
    audio, heard = songs["song 1"][: 20 * RATE_HZ], SoundPrint()
    for size, start in ((1, 0), (5000, 1), (200_001, 5001), (len(audio), 205_002)):
        heard.add(audio[start : start + size])
    np.testing.assert_array_equal(heard.result(), sound_print(audio))


def test_copies_of_copies_are_one_group():
    pairs = [Pair("c", "b", 1.0), Pair("e", "c", 1.0), Pair("a", "d", 0.3)]
    assert groups("abcdef", pairs) == {"a": "a", "b": "b", "c": "b", "d": "a", "e": "b", "f": "f"}


def test_exact_and_near_copies_share_their_music_and_are_told(tmp_path):
    noise, tracks = np.random.default_rng(0).normal(0, 0.1, (4, 4000)), []
    noise[1] = noise[0]
    for index, audio in enumerate(noise):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, audio, 8000)
        tracks.append(Track(SongFile(path, path.name), f"sha {index}", measure(path), "0.wav" if index == 1 else ""))
    copies = copies_of(tracks, [Pair("sha 0", "sha 1", 1.0), Pair("sha 1", "sha 3", 0.6)])
    assert len(set(copies.music.values())) == 2 and copies.music["sha 0"] == copies.music["sha 3"]
    assert copies.flags == {
        "sha 0": [],
        "sha 1": ["same_audio_as:0.wav", "sounds_like:3.wav"],
        "sha 2": [],
        "sha 3": ["sounds_like:1.wav"],
    }
