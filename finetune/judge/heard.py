"""One adapter at one strength, played and heard: every measure that needs sound, next to the base's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from configs.evaluate import EvaluateSettings
from data_prep.base_files import BaseFiles
from data_prep.codec.port import Codec
from finetune.judge.copying import Runs, runs_of
from finetune.judge.distances import fad_infinity, kad, kad_closed, kad_moved, median_distance
from finetune.judge.embedders import Embedder, Scaled, embedder
from finetune.judge.intervals import Estimate
from finetune.judge.plan import Ask, Kind
from finetune.judge.play import Piece, audio_of, of_kind, play, sampler
from finetune.judge.reference import Reference, Window
from finetune.judge.trust import Trust, pink_noise, trust_of

NOISES = 12


@dataclass
class Rows:
    """Pieces and their embeddings, row for row."""

    pieces: list[Piece]
    embedded: Float[np.ndarray, "N D"]

    def of(self, *kinds: Kind) -> "Rows":
        """Those of some kinds."""
        keep = np.array([piece.ask.kind in kinds for piece in self.pieces], dtype=bool)
        return Rows(of_kind(self.pieces, *kinds), self.embedded[keep])


@dataclass
class Room:
    """Where adapters are heard: the base's own pieces, the person's music, and an ear."""

    files: BaseFiles
    settings: EvaluateSettings
    codec: Codec
    ear: Embedder
    base: Rows
    reference: Reference | None
    mine: Float[np.ndarray, "M D"] | None
    trust: Trust | None

    @property
    def sigma(self) -> float:
        """KAD's bandwidth, one for all distances: the reference's."""
        return median_distance(self.base.embedded if self.mine is None else self.mine)

    @property
    def scale(self) -> float | None:
        """KAD from the base's foreign pieces to the person's music: what forgetting is a share of."""
        if self.mine is None or not len(self.base.of("foreign").pieces):
            return None
        found = kad(self.base.of("foreign").embedded, self.mine, sigma=self.sigma).value
        return found if found > 0 else None

    def embed(self, audio: Sequence[Float[np.ndarray, "C _"]]) -> Float[np.ndarray, "N D"]:
        """Rows in this room's space."""
        return self.ear.embed(audio, self.codec.sample_rate_hz)


def open_room(
    files: BaseFiles,
    settings: EvaluateSettings,
    asks: Sequence[Ask],
    reference: Reference | None,
    say: Callable[[str], None],
) -> Room:
    """Let the base play everything, and hear it and the person's music."""
    inner = embedder(settings.embedding)
    player = sampler(files, settings)
    assert player.codec is not None
    codec = player.codec
    say(f"the base plays {len(asks)} pieces")
    pieces = play(player, asks)
    rows = inner.embed(audio_of(pieces), codec.sample_rate_hz)
    mine = None
    if reference is not None:
        say(f"{inner.name} listens to {len(reference.windows)} windows of the songs")
        mine = inner.embed(reference.audio(codec), codec.sample_rate_hz)
    ear = Scaled(inner, rows if mine is None else np.concatenate([mine, rows]))
    room = Room(files, settings, codec, ear, Rows(pieces, ear.scaled(rows)), reference, None, None)
    if mine is not None and reference is not None:
        room.mine = ear.scaled(mine)
        room.trust = _trust(room, reference)
    return room


def _trust(room: Room, reference: Reference) -> Trust:
    assert room.mine is not None
    n_samples = reference.windows[0].codes.shape[1] * room.codec.hop_samples
    noise = room.embed([pink_noise(n_samples, room.codec.channels, seed) for seed in range(NOISES)])
    other = room.base.of("foreign")
    return trust_of(room.mine, reference.tracks, other.embedded, noise)


@dataclass
class Heard:
    """What an adapter at a strength sounds like."""

    rows: Rows
    style: Estimate | None
    """Percent of the way from the base to the person's music, asked with the trigger."""
    bare_style: Estimate | None
    """The same asked without the trigger."""
    forgetting: Estimate | None
    """Percent of the distance from the base to the person's music by which foreign pieces moved."""
    runs: Runs | None


def hear(
    room: Room,
    adapter: Path,
    strength: float,
    asks: Sequence[Ask],
    training: Sequence[Window] = (),
    held_out: Sequence[Window] = (),
) -> Heard:
    """Play the asks with an adapter and compare with the base's pieces of the same asks."""
    pieces = play(sampler(room.files, room.settings, adapter, strength), asks)
    rows = Rows(pieces, room.embed(audio_of(pieces)))
    runs = None
    if training:
        adapted, base = (of_kind(these, "own", "taught") for these in (pieces, _same(room.base.pieces, asks)))
        runs = runs_of(
            adapted, base, training, held_out, frame_rate=room.codec.frame_rate, channels=room.codec.channels
        )
    return Heard(rows, closed(room, rows, "own"), closed(room, rows, "bare"), moved(room, rows), runs)


def closed(room: Room, rows: Rows, kind: Kind) -> Estimate | None:
    """Percent of the way to the person's music on prompts of a kind."""
    ours, base = rows.of(kind), _paired(room, rows.of(kind))
    if room.mine is None or room.reference is None or len(ours.pieces) < 2:
        return None
    return kad_closed(base, ours.embedded, room.mine, groups=room.reference.tracks)


def moved(room: Room, rows: Rows) -> Estimate | None:
    """Forgetting: how far foreign pieces moved; KAD itself where there is no music of the person to scale it by."""
    ours = rows.of("foreign")
    if len(ours.pieces) < 2:
        return None
    found = kad_moved(_paired(room, ours), ours.embedded, sigma=room.sigma)
    return found if room.scale is None else found.scaled(100 / room.scale)


def distances(room: Room, rows: Rows) -> dict[str, Estimate | float | None]:
    """KAD and FAD∞ to the person's music, of the base and of the adapter, on own prompts."""
    if room.mine is None or room.reference is None:
        return {}
    ours = rows.of("own")
    base = _paired(room, ours)
    found: dict[str, Estimate | float | None] = {}
    for name, embedded in (("base", base), ("adapter", ours.embedded)):
        found[f"kad_{name}"] = kad(embedded, room.mine, sigma=room.sigma, y_groups=room.reference.tracks)
        found[f"fad_infinity_{name}"] = fad_infinity(embedded, room.mine)
    return found


def _paired(room: Room, rows: Rows) -> Float[np.ndarray, "N D"]:
    """The base's rows for the same asks."""
    place = {piece.ask: number for number, piece in enumerate(room.base.pieces)}
    return room.base.embedded[[place[piece.ask] for piece in rows.pieces]]


def _same(pieces: Sequence[Piece], asks: Sequence[Ask]) -> list[Piece]:
    wanted = set(asks)
    return [piece for piece in pieces if piece.ask in wanted]
