"""MIDI files: what they say in seconds, what a piece follows of them, and files that are none."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.note_slots import Note
from data_prep.notes.midi import read_midi
from finetune.sampling.line import Request, read_line
from finetune.sampling.score import read_score

mido = pytest.importorskip("mido")
Message, MetaMessage = mido.Message, mido.MetaMessage


def write(path: Path, *tracks: list[Any]) -> Path:
    file = mido.MidiFile(type=1, ticks_per_beat=100)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    file.save(path)
    return path


def song(folder: Path) -> Path:
    """Two notes, the second struck while the tempo is twice as slow, and three drum hits."""
    tempo = [MetaMessage("set_tempo", tempo=500_000, time=0), MetaMessage("set_tempo", tempo=1_000_000, time=100)]
    piano = [
        Message("note_on", note=60, velocity=90, time=0),
        Message("note_off", note=60, time=100),
        Message("note_on", note=64, velocity=90, time=0),
        Message("note_on", note=64, velocity=0, time=50),
    ]
    hit = [
        Message("note_on", channel=9, note=38, velocity=90, time=0),
        Message("note_off", channel=9, note=38, time=50),
    ]
    return write(folder / "song.mid", tempo, piano, hit * 3)


def test_notes_and_drums_in_seconds(tmp_path: Path) -> None:
    score = read_midi(song(tmp_path))
    assert score.notes == [Note(60, 0.0, 0.5), Note(64, 0.5, 1.0)]
    np.testing.assert_allclose(score.drums_sec, [0.0, 0.25, 0.5])


def test_a_note_that_is_never_released_lasts_to_the_end(tmp_path: Path) -> None:
    held = [Message("note_on", note=50, velocity=9, time=0), Message("note_off", note=51, time=200)]
    assert read_midi(write(tmp_path / "a.mid", held)).notes == [Note(50, 0.0, 1.0)]


def test_files_that_say_nothing_or_are_none(tmp_path: Path) -> None:
    whole = song(tmp_path).read_bytes()
    broken = {
        "empty": b"",
        "text": b"what is this" * 20,
        "sound": b"RIFF\x00\x00\x00\x00WAVEfmt ",
        "cut": whole[: len(whole) // 2],
        "head": whole[:14],
        "length": whole[:18] + b"\xff\xff\xff\xff" + whole[22:],
        "bytes": whole[:30] + bytes(range(200, 256)) + whole[40:],
    }
    for name, data in broken.items():
        (tmp_path / f"{name}.mid").write_bytes(data)
        with pytest.raises(UserError, match="MIDI file"):
            read_midi(tmp_path / f"{name}.mid")
    with pytest.raises(UserError, match="cannot be read"):
        read_midi(tmp_path)
    with pytest.raises(UserError, match="holds no notes"):
        read_midi(write(tmp_path / "silent.mid", [Message("program_change", program=3, time=9)]))
    with pytest.raises(UserError, match="hours"):
        read_midi(write(tmp_path / "long.mid", [Message("note_on", note=1, time=2**24)]))


def request(base: str = "debug-mrt2", **more: Any) -> Request:
    settings = SampleSettings(duration_sec=1.2, precision="fp32", temperature=0.0)
    return Request(settings, base, None, [], ["piano"], None, None, None, None, False, None, **more)


def test_what_a_piece_follows(tmp_path: Path) -> None:
    spec = resolve_base("debug-mrt2").spec
    score = read_score(request(notes=song(tmp_path)), spec, known_frames=5)
    assert score is not None and "2 notes" in score.said and "3 hits" in score.said
    notes, drums = score.conditions["notes"], score.conditions["drums"]
    assert notes.shape == (35, 128) and drums.shape == (35, 1)
    assert (notes[:5] == -1).all() and (drums[:5] == -1).all(), "what is known already stays free"
    assert notes[5, 60] == 2 and notes[6, 60] == 1 and notes[17, 64] == 2 and notes[17, 62] == 0
    assert (notes[32:] == -1).all(), "behind its end the file says nothing"
    assert (drums[5:30] == 1).all()
    told = read_score(request(notes=song(tmp_path), drums="off"), spec, 0)
    assert told is not None and (told.conditions["drums"] == 0).all() and "whatever the file says" in told.said
    alone = read_score(request(drums="on"), spec, 0)
    assert alone is not None and alone.conditions.keys() == {"drums"} and (alone.conditions["drums"] == 1).all()
    assert read_score(request(), spec, 0) is None
    with pytest.raises(UserError, match="does not follow notes"):
        read_score(request(notes=song(tmp_path)), resolve_base("debug").spec, 0)


def test_the_music_changes_with_them(tmp_path: Path) -> None:
    player = Sampler.load(resolve_base("debug-mrt2"), (), request().settings)
    free = player.codes(["piano"])[0]
    score = read_score(request(notes=song(tmp_path)), player.engine.spec, 0)
    assert score is not None
    player.conditions = score.conditions
    led = player.codes(["piano"])[0]
    assert (led != free).any()
    own = player.codes(["piano"], also=[{"notes": torch.full((30, 128), -1), "drums": torch.full((30, 1), -1)}])[0]
    np.testing.assert_array_equal(own, free)


def test_the_line_says_which_file_is_missing(tmp_path: Path) -> None:
    names = (
        "adapter story mix prompts_file continued melody context heard from_sec loop play pipe strength out revision "
        "beat page style style_weight"
    )
    blank: dict[str, Any] = dict.fromkeys(names.split())
    flags = {**blank, "words": ["piano"], "base": "debug-mrt2", "drums": None, "notes": tmp_path / "no.mid"}
    with pytest.raises(UserError, match="MIDI file is not there"):
        read_line(Namespace(**flags, force=False, melody_stems="mix", bpm=None, bars=None), SampleSettings())
