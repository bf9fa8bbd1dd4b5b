"""Endless little pieces: a seed becomes a piece whose tempo, key, chords, instruments and manner are known.

Seeds below HELD_OUT are for training; from HELD_OUT on for measuring; from ISLAND_SEEDS on for the demo's style.
"""

import random
from collections.abc import Iterable

from starter.recipe import figures
from starter.recipe.harmony import TONICS, draw_degrees, draw_key
from starter.recipe.manners import BASSES, FAMILIES, ISLAND, ISLAND_INSTRUMENTS, MANNERS, Manner
from starter.recipe.melody import lead_line
from starter.recipe.score import DRUM_CHANNEL, Note, Part, Piece

HELD_OUT = 1_000_000
ISLAND_SEEDS = 2_000_000
RING_OUT_SEC = 1.0
"""A piece is this much longer than its bars."""
ROLES = ("lead", "chords", "bass", "drums")
LOUDNESS = {"lead": 104, "chords": 72, "bass": 88, "drums": 84}


def compose(seed: int, *, family: str | None = None, drums: bool | None = None, tempo_bpm: int | None = None) -> Piece:
    """The piece of a seed, 10 to 20 s long. The same seed gives the same piece; what is given is not drawn."""
    rng = random.Random(seed)
    if seed >= ISLAND_SEEDS:
        return _island(rng, seed)
    manners = [manner for manner in MANNERS if drums is not True or manner.drums]
    if tempo_bpm is not None:
        manners = [m for m in manners if m.tempo_bpm[0] <= tempo_bpm <= m.tempo_bpm[1]] or manners
    manner = rng.choice(manners)
    drawn_family = rng.choice(sorted(FAMILIES))
    family = family or drawn_family
    lead = rng.choice(FAMILIES[family])
    second = rng.choice(sorted(FAMILIES)) if rng.random() < 0.25 else family
    chords = rng.choice(FAMILIES[second]) if second != family else lead
    with_drums = bool(manner.drums) and rng.random() < 0.75
    return _write(rng, seed, manner, family, lead, second, chords, with_drums if drums is None else drums, tempo_bpm)


def _island(rng: random.Random, seed: int) -> Piece:
    pan, kalimba = ISLAND_INSTRUMENTS
    return _write(rng, seed, ISLAND, "steel drums", pan, "kalimba", kalimba, True, None)


def _write(
    rng: random.Random,
    seed: int,
    manner: Manner,
    family: str,
    lead: tuple[str, int, int],
    second: str,
    chords: tuple[str, int, int],
    drums: bool,
    tempo_bpm: int | None,
) -> Piece:
    drawn_tempo = rng.randint(*manner.tempo_bpm)
    tempo_bpm = tempo_bpm or drawn_tempo
    beat_sec = 60 / tempo_bpm
    beats = manner.beats_per_bar
    bars = max(4, round(rng.uniform(10, 19) / (beats * beat_sec)))
    key = draw_key(rng)
    degrees = draw_degrees(rng, key, bars)
    players = {
        "lead": (lead[0], lead[1], lead_line(rng, key, degrees, beats, manner.divisions, manner.lead, lead[2])),
        "chords": (
            chords[0],
            chords[1],
            _bars(figures.chord_bar(manner.chords, key.triad(d), beats, 58) for d in degrees),
        ),
        "bass": (*BASSES[manner.bass_kind], _bars(figures.bass_bar(manner.bass, key.triad(d), beats) for d in degrees)),
    }
    if drums:
        players["drums"] = ("drums", 0, _bars(figures.drum_bar(manner.drums, bar, rng) for bar in range(bars)))
    parts = tuple(
        Part(role, name, program, DRUM_CHANNEL if role == "drums" else ROLES.index(role),
             _notes(rng, hits, beats, beat_sec, LOUDNESS[role]))
        for role, (name, program, hits) in players.items()
    )  # fmt: skip
    return Piece(
        seed=seed,
        manner=manner.name,
        family=family,
        instrument=lead[0],
        second=second,
        drums=drums,
        tempo_bpm=tempo_bpm,
        beats_per_bar=beats,
        tonic=TONICS[key.tonic],
        mode=key.mode,
        chords=tuple(key.chord_name(degree) for degree in degrees),
        duration_sec=bars * beats * beat_sec + RING_OUT_SEC,
        beats_sec=tuple(index * beat_sec for index in range(bars * beats)),
        parts=parts,
    )


def _bars(bars: Iterable[Iterable[figures.Hit]]) -> list[tuple[int, figures.Hit]]:
    return [(bar, hit) for bar, hits in enumerate(bars) for hit in hits]


def _notes(
    rng: random.Random, hits: list[tuple[int, figures.Hit]], beats: int, beat_sec: float, loudness: int
) -> tuple[Note, ...]:
    """Hits in beats become notes in seconds, with a few milliseconds and a little loudness of human error."""
    notes = []
    for bar, (start, length, pitch, accent) in hits:
        at_sec = (bar * beats + start) * beat_sec + rng.uniform(0, 0.006)
        velocity = round(loudness * accent * rng.uniform(0.94, 1.06))
        notes.append(Note(at_sec, length * beat_sec, pitch, min(127, velocity)))
    return tuple(notes)
