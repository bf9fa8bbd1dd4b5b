import random
from dataclasses import replace

import pytest

from starter.recipe.captions import caption, captions, prompt
from starter.recipe.compose import HELD_OUT, ISLAND_SEEDS, compose
from starter.recipe.harmony import TONICS, Key
from starter.recipe.manners import FAMILIES
from starter.recipe.score import DRUM_CHANNEL

SEEDS = [*range(40), *range(HELD_OUT, HELD_OUT + 20)]


def test_a_seed_is_a_piece() -> None:
    assert compose(7) == compose(7)
    assert compose(7) != compose(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_are_what_they_say(seed: int) -> None:
    piece = compose(seed)
    assert 10 <= piece.duration_sec <= 22
    assert 70 <= piece.tempo_bpm <= 160
    assert any(part.channel == DRUM_CHANNEL for part in piece.parts) == piece.drums
    lead = piece.parts[0]
    assert lead.program in [program for _, program, _ in FAMILIES[piece.family]]
    for part in piece.parts:
        for note in part.notes:
            assert 0 <= note.start_sec < piece.duration_sec
            assert 0 < note.velocity < 128
            assert 24 <= note.pitch <= 103 or part.channel == DRUM_CHANNEL


def test_most_notes_are_of_the_key() -> None:
    for seed in SEEDS:
        piece = compose(seed)
        key = Key(TONICS.index(piece.tonic), piece.mode)
        scale = {key.pitch(degree) % 12 for degree in range(7)}
        notes = [note.pitch % 12 for part in piece.parts if part.channel != DRUM_CHANNEL for note in part.notes]
        assert sum(pitch in scale for pitch in notes) >= 0.85 * len(notes)


def test_chords_are_named_right() -> None:
    a_minor = Key(TONICS.index("A"), "minor")
    assert [a_minor.chord_name(degree) for degree in range(7)] == ["Am", "Bdim", "C", "Dm", "E", "F", "G"]


def test_the_demo_style_is_left_out_of_training() -> None:
    trained = [compose(seed) for seed in range(300)]
    assert {piece.manner for piece in trained}.isdisjoint({"island"})
    programs = {part.program for piece in trained for part in piece.parts}
    island = compose(ISLAND_SEEDS)
    assert {part.program for part in island.parts if part.role in ("lead", "chords")}.isdisjoint(programs)
    assert island.manner == "island"
    assert island.beats_per_bar == 2


def test_what_is_asked_for_is_played() -> None:
    piece = compose(3, family="organ", drums=True, tempo_bpm=121)
    assert (piece.family, piece.drums, piece.tempo_bpm) == ("organ", True, 121)


def test_captions_vary_and_tell_the_truth() -> None:
    piece = replace(compose(3, family="organ", drums=False), second="organ")
    wordings = {caption(piece, random.Random(seed)) for seed in range(30)}
    assert len(wordings) > 10
    for wording in wordings:
        assert f"{piece.tempo_bpm} bpm" in wording
        assert "organ" in wording
        assert any(said in wording for said in ("no drums", "without drums", "drumless"))
        assert piece.key in wording or "minor" not in wording
    assert captions(piece, 4) == captions(piece, 4)


def test_prompts_are_in_the_words_of_captions() -> None:
    assert prompt("piano", False, 80, "folk") == "slow folk, piano, no drums, 80 bpm"
