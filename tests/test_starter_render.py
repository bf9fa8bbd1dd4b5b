"""Rendering with FluidSynth, where it is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mido", reason="the recipe's own dependency (group `recipe`)")

from starter.recipe.collection import Collection, write_collection
from starter.recipe.compose import compose
from starter.recipe.render import SOUNDFONTS, TICKS_PER_SEC, midi_of, render, render_stems

needs_synth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not any(path.exists() for path in SOUNDFONTS),
    reason="FluidSynth with FluidR3 is not installed",
)


def test_pieces_stand_one_after_the_other_in_the_midi_file() -> None:
    pieces = [compose(1), compose(2)]
    midi, starts = midi_of(pieces)
    assert starts[0] == 0
    assert starts[1] >= pieces[0].duration_sec + 2
    assert midi.length == pytest.approx(starts[1] + pieces[1].duration_sec + 2, abs=1.5)
    notes, at_tick = [], 0
    for message in midi.tracks[0]:
        at_tick += message.time
        if message.type == "note_on":
            notes.append((at_tick / TICKS_PER_SEC, message.note))
    written = [note for part in pieces[0].parts for note in part.notes]
    found = [note for note in notes if note[0] < starts[1]]
    assert sorted(pitch for _, pitch in found) == sorted(note.pitch for note in written)
    late = np.sort([at_sec for at_sec, _ in found]) - np.sort([note.start_sec for note in written])
    assert np.abs(late).max() < 0.001


@needs_synth
def test_a_piece_sounds_when_its_notes_do() -> None:
    piece = compose(3)
    audio = render([compose(2), piece], 16_000)[1]
    assert len(audio) == pytest.approx(piece.duration_sec * 16_000, abs=16)
    assert np.sqrt((audio**2).mean()) == pytest.approx(0.1, rel=0.2)
    assert np.abs(audio).max() <= 0.951
    first = min(note.start_sec for part in piece.parts for note in part.notes)
    assert np.abs(audio[: round(first * 16_000)]).max(initial=0) < 0.01


@needs_synth
def test_stems_add_up_to_the_piece() -> None:
    """Up to a block of FluidSynth's (2 ms) by which a part alone may begin elsewhere."""
    piece = compose(3)
    stems = render_stems(piece, 16_000)
    assert set(stems) == {part.role for part in piece.parts}
    together, mix = np.sum(list(stems.values()), axis=0), render([piece], 16_000)[0]
    assert together @ mix / np.sqrt((together @ together) * (mix @ mix)) > 0.97


@needs_synth
def test_a_collection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_collection(tmp_path, 2, first_seed=7, sample_rate_hz=16_000)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_collection(tmp_path, 2, first_seed=7, sample_rate_hz=16_000)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    collection = Collection(tmp_path)
    assert [facts["seed"] for facts in collection.facts] == [7, 8]
    assert len(collection.audio(1)) == collection.facts[1]["n_samples"]
    assert all(facts["captions"] for facts in collection.facts)
