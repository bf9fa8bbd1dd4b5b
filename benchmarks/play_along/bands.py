"""Bands of the starter's composer with every part rendered alone, and their codec tokens: nothing leaks, all is known.

A band is a file `<seed>.stems.npz` (16-bit audio by role) and a file of tokens [K, T] for each side that a task needs:
a sum of roles, as it is, with a rest in it, or with drums that have leaked into it. What is there is kept, so a run
that was stopped goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int16

from data_prep.base_files import resolve_base
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.context_side import GAIN_DB, LOW_PASS_HZ, NOISE_DB, degrade, low_pass
from starter.recipe.compose import HELD_OUT, compose
from starter.recipe.render import render_all_stems
from starter.recipe.score import Piece

RATE_HZ = 16_000
LEARN_SEC = 8.0
"""Of bands to learn from, as much is encoded: many beginnings teach more than a few whole pieces."""
AT_ONCE = 24
SIDES: Mapping[str, tuple[str, ...]] = {
    "drums": ("drums",),
    "no_drums": ("lead", "chords", "bass"),
    "lead": ("lead",),
    "no_lead": ("chords", "bass", "drums"),
    "pitched": ("lead", "chords"),
    "chords": ("chords", "bass"),
}
RESTS = "_rests"
"""Ending of a side in which the whole band rests for a while: of every second band to learn from, and of all others."""
REST_SEC = (4.0, 6.5)
"""When the held-out bands rest."""
FADE_SEC = 0.02
LEAKY = "leaky"
"""All but the drums, with the drums still in it at `LEAK_DB`, as separation leaves them."""
LEAK_DB = -25.0
WEAKENED = ("noise", "low_pass", "gain", "missing", "all")
"""`leaky_noise` …: one of the measures against leakage alone, or what `prep` makes of them together."""


@dataclass(frozen=True)
class Band:
    """One piece and the tokens of its sides; its audio stays in `folder` until it is asked for."""

    piece: Piece
    folder: Path
    codes: Mapping[str, Int16[np.ndarray, "K T"]]

    def side(self, name: str) -> Float[np.ndarray, " N"]:
        """The audio of a sum of parts."""
        return side_of(_stems(self.folder, self.piece.seed), name, self.piece.seed)


def side_of(stems: Mapping[str, Float[np.ndarray, " N"]], name: str, seed: int) -> Float[np.ndarray, " N"]:
    """The audio of a side of this name."""
    if name.endswith(RESTS):
        return side_of(stems, name.removesuffix(RESTS), seed) * rest_gain(len(stems["lead"]), seed)
    if not name.startswith(LEAKY):
        return np.sum([stems[role] for role in SIDES[name]], axis=0)
    leak = stems["drums"] * 10 ** (LEAK_DB / 20)
    parts = np.stack([stems[role] for role in SIDES["no_drums"]])
    how = name.removeprefix(LEAKY).lstrip("_")
    return weakened(parts + leak / len(parts), how, seed) if how else parts.sum(0) + leak


def rest_gain(n_samples: int, seed: int) -> Float[np.ndarray, " N"]:
    """1 where the band plays, 0 where it rests."""
    draw = np.random.default_rng(seed)
    start, length = draw.uniform(1.0, LEARN_SEC - 3.0), draw.uniform(1.0, 2.0)
    start, end = REST_SEC if seed >= HELD_OUT else (start, start + length)
    if seed < HELD_OUT and seed % 2:
        return np.ones(n_samples, np.float32)
    at_sec = np.arange(n_samples) / RATE_HZ
    outside = np.maximum(start - at_sec, at_sec - end)
    return np.clip(outside / FADE_SEC + 1, 0, 1).astype(np.float32)


def weakened(parts: Float[np.ndarray, "Q N"], how: str, seed: int) -> Float[np.ndarray, " N"]:
    """One of `WEAKENED` on the sum of parts, with the very numbers that `prep` draws from."""
    if how == "all":
        return degrade(parts[:, None], 1 + seed % 2, str(seed), RATE_HZ)[0]
    draw = np.random.default_rng(seed)
    audio = parts.sum(0)
    if how == "missing":
        return np.delete(parts, int(draw.integers(len(parts))), axis=0).sum(0)
    if how == "low_pass":
        return low_pass(audio[None], draw.uniform(*LOW_PASS_HZ), RATE_HZ)[0].astype(np.float32)
    if how == "gain":
        return audio * np.float32(10 ** (draw.uniform(*GAIN_DB) / 20))
    noise = draw.standard_normal(len(audio)) * 10 ** (draw.uniform(*NOISE_DB) / 20)
    return (audio + noise).astype(np.float32)


def seeds_of(n_train: int, n_held_out: int) -> tuple[range, range]:
    """Bands to learn from, and bands to judge by."""
    return range(n_train), range(HELD_OUT, HELD_OUT + n_held_out)


def make_bands(folder: Path, seeds: Sequence[int], sides: Sequence[str]) -> None:
    """Render the bands that are not there, and encode these sides of them."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = load_base_codec(resolve_base("starter"), torch.device("cpu"))
    for first in range(0, len(seeds), AT_ONCE):
        some = seeds[first : first + AT_ONCE]
        silent = [seed for seed in some if not _stems_path(folder, seed).exists()]
        pieces = [compose(seed, drums=True) for seed in silent]
        for piece, stems in zip(pieces, render_all_stems(pieces, RATE_HZ) if pieces else (), strict=True):
            whole = {role: np.clip(audio * 32767, -32768, 32767).astype(np.int16) for role, audio in stems.items()}
            save(_stems_path(folder, piece.seed), whole)
        for seed in some:
            _encode(folder, seed, codec, sides)


def _encode(folder: Path, seed: int, codec: Codec, sides: Sequence[str]) -> None:
    missing = [side for side in sides if not _codes_path(folder, seed, side).exists()]
    stems = _stems(folder, seed) if missing else {}
    for side in missing:
        audio = side_of(stems, side, seed)[None].astype(np.float32)
        audio = audio if seed >= HELD_OUT else audio[:, : round(LEARN_SEC * RATE_HZ)]
        save(_codes_path(folder, seed, side), {"codes": codec.encode([torch.from_numpy(audio)])[0]})


def read_bands(folder: Path, seeds: Iterable[int], sides: Sequence[str]) -> list[Band]:
    """Bands that `make_bands` made."""
    found = []
    for seed in seeds:
        codes = {}
        for side in sides:
            with np.load(_codes_path(folder, seed, side)) as held:
                codes[side] = held["codes"]
        found.append(Band(compose(seed, drums=True), folder, codes))
    return found


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Written beside and renamed: a file that is there is whole."""
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]
    part.rename(path)


def _stems_path(folder: Path, seed: int) -> Path:
    return folder / f"{seed:07}.stems.npz"


def _codes_path(folder: Path, seed: int, side: str) -> Path:
    return folder / f"{seed:07}.{side}.npz"


def _stems(folder: Path, seed: int) -> dict[str, Float[np.ndarray, " N"]]:
    with np.load(_stems_path(folder, seed)) as held:
        return {name: held[name].astype(np.float32) / 32767 for name in held.files}
