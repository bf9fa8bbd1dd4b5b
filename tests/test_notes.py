"""Notes and drums out of sound: the model's windows, what becomes of its likelihoods, hits of drums."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data_prep.note_slots import Note
from data_prep.notes.drums import drum_hits, drum_slots
from data_prep.notes.events import note_events
from data_prep.notes.model import (
    HOP_SAMPLES,
    KEPT_FRAMES,
    N_PITCHES,
    NOTES,
    ONSETS,
    RATE_HZ,
    WINDOW_SAMPLES,
    Likelihoods,
    NotesModel,
    model_file,
)

FRAME_SEC = HOP_SAMPLES / RATE_HZ


def heard(n_frames: int = 120) -> Likelihoods:
    return Likelihoods(*(np.full((n_frames, N_PITCHES), 0.05, np.float32) for _ in range(2)))


def note(pitch: int, first: int, end: int) -> Note:
    return Note(21 + pitch, first * FRAME_SEC, end * FRAME_SEC)


def test_a_note_lasts_from_its_onset_while_it_is_likely() -> None:
    one = heard()
    one.onsets[20, 40], one.notes[20:60, 40] = 0.9, 0.8
    one.notes[30:40, 40] = 0.1  # a dip of ten frames is bridged
    one.onsets[80, 3], one.notes[80:88, 3] = 0.9, 0.8  # too short
    one.onsets[50, 7], one.notes[50:60, 7] = 0.4, 0.29  # neither onset nor note
    assert note_events(one) == [note(40, 20, 60)]


def test_a_note_struck_again_is_two() -> None:
    one = heard()
    one.onsets[10, 5] = one.onsets[40, 5] = 0.9
    one.notes[10:80, 5] = 0.8
    assert note_events(one) == [note(5, 10, 40), note(5, 40, 80)]


def test_a_long_dip_ends_a_note_and_what_is_left_is_traced_both_ways() -> None:
    one = heard()
    one.onsets[10, 5], one.notes[10:40, 5] = 0.9, 0.8
    one.notes[60:90, 5] = 0.5  # no onset here, and the likeliest frame in the middle
    one.notes[70, 5] = 0.7
    assert note_events(one) == [note(5, 10, 40), note(5, 60, 90)]


def test_of_a_broad_onset_the_peak_counts() -> None:
    one = heard()
    one.onsets[19:22, 40], one.notes[18:60, 40] = [0.6, 0.9, 0.7], 0.8
    found = note_events(one)
    assert [n for n in found if n.end_sec > 50 * FRAME_SEC] == [note(40, 20, 60)] and len(found) == 1


class _Ports:
    def __init__(self, name: str) -> None:
        self.name = name


class _Echo:
    """Stands where onnxruntime's session does, and says of each frame what its first sample is."""

    def get_inputs(self) -> list[_Ports]:
        return [_Ports("audio")]

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert names == [ONSETS, NOTES] and inputs["audio"].shape == (1, WINDOW_SAMPLES, 1)
        frames = inputs["audio"][:, ::HOP_SAMPLES]  # [1, 172, 1]
        return [np.repeat(frames, N_PITCHES, axis=2), np.repeat(-frames, N_PITCHES, axis=2)]


@pytest.mark.parametrize("n_frames", [1, KEPT_FRAMES, 3 * KEPT_FRAMES + 5])
def test_windows_follow_one_another_without_a_gap(n_frames: int) -> None:
    audio = np.zeros(n_frames * HOP_SAMPLES - 100)
    audio[::HOP_SAMPLES] = np.arange(1, n_frames + 1)
    found = NotesModel(_Echo()).listen(audio)
    np.testing.assert_array_equal(found.onsets[:, 50], np.arange(1, n_frames + 1))
    np.testing.assert_array_equal(found.notes[:, 0], -np.arange(1, n_frames + 1))
    assert NotesModel(_Echo()).listen(audio[:0]).onsets.shape == (0, N_PITCHES)


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such model"):
        model_file(tmp_path / "nmp.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        model_file(None)


def tone(pitch: int, sec: float) -> np.ndarray:
    time = np.arange(round(sec * RATE_HZ)) / RATE_HZ
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    fade = np.exp(-2 * time) * np.minimum(1, time * 200) * np.minimum(1, (sec - time) * 100)
    return 0.2 * fade * sum(np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, 7))


def melody(sec: float = 8.0) -> tuple[np.ndarray, list[tuple[int, float]]]:
    draw = np.random.default_rng(0)
    audio, struck = np.zeros(round(sec * RATE_HZ)), []
    for start in np.arange(0.3, sec - 0.5, 0.45):
        pitch = int(draw.integers(45, 84))
        sound, at = tone(pitch, 0.4), round(start * RATE_HZ)
        audio[at : at + len(sound)] += sound
        struck.append((pitch, float(start)))
    return audio, struck


def beat(sec: float = 8.0) -> tuple[np.ndarray, list[float], list[float]]:
    """Bass drum and snare in turn; when all are struck, and when the snare is."""
    draw = np.random.default_rng(1)
    audio, hits = np.zeros(round(sec * RATE_HZ)), np.arange(1.0, sec - 0.5, 0.5)
    time = np.arange(round(0.15 * RATE_HZ)) / RATE_HZ
    for number, hit in enumerate(hits):
        bass = 0.6 * np.sin(2 * np.pi * (50 + 80 * np.exp(-40 * time)) * time) * np.exp(-15 * time)
        snare = 0.3 * np.diff(draw.standard_normal(len(time)) * np.exp(-30 * time), prepend=0)
        at = round(hit * RATE_HZ)
        audio[at : at + len(time)] += snare if number % 2 else bass
    return audio, list(hits), list(hits[1::2])


def test_drums_of_a_stem_and_of_a_mix() -> None:
    drums, hits, snares = beat()
    music, _ = melody()
    for audio, of_mix, expected in ((drums, False, hits), (drums + music, True, snares)):
        found = drum_hits(audio, of_mix=of_mix)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, atol=0.05)
    assert len(drum_hits(music, of_mix=True)) == 0 and len(drum_hits(music[:0], of_mix=False)) == 0


def test_frames_have_drums_when_a_hit_is_near() -> None:
    slots = drum_slots(np.array([2.0, 3.5]), 200, 25.0)[:, 0]
    assert slots[25:112].all() and not slots[:25].any() and not slots[113:].any()


@pytest.mark.network
def test_the_published_model_hears_a_melody() -> None:
    """basic-pitch's own weights: every note is found where it was struck. It also hears some overtones as notes."""
    pytest.importorskip("onnxruntime")
    model = NotesModel.load(model_file(None))
    audio, struck = melody()
    found = note_events(model.listen(audio))
    assert len(found) < 3 * len(struck)
    for pitch, start in struck:
        assert any(one.pitch == pitch and abs(one.start_sec - start) < 0.05 for one in found), (pitch, start)


@pytest.mark.network
def test_other_files_are_no_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not basic-pitch's model"):
        NotesModel.load(tmp_path / "x.onnx")
