"""What `--pair` asks for: a part to learn and its context, both stems or sums of stems; and clips that have both.

`drums|rest` learns drums that go with everything else; `other|drums+bass` learns the rest of a band from its rhythm
section. `rest` is all stems that the other side does not name.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from data_prep.clips import Clip, Version
from data_prep.scan import Rejection
from data_prep.stems import INSTRUMENTAL, MIX, REST, Selection

ACTIVE_SHARE = 0.25
"""Of a clip, in how much the context must sound at least; the target is judged when it is cut."""
FAR_BELOW_DB = 30.0
"""A context so far below what is to be learnt, it is silence with leakage in it."""
EXAMPLE = 'e.g. --pair "drums|rest"'


@dataclass(frozen=True)
class Pair:
    """The part that is learnt, and the single stems of its context, summed."""

    name: str
    target: Selection
    context: tuple[Selection, ...]

    @property
    def context_name(self) -> str:
        """`bass+other+vocals`."""
        return "+".join(stem.name for stem in self.context)


def parse_pair(text: str, stems: Sequence[str]) -> Pair:
    """Read `TARGET|CONTEXT`, given which stems there are.

    Raises:
        UserError: a side is missing, names no stem, or both name the same one.
    """
    sides = [side.strip().lower() for side in text.split("|")]
    if len(sides) != 2 or not all(sides):
        raise _refused(text, "two sides are wanted, the part to learn and its context", EXAMPLE)
    named = [None if side == REST else _stems_in(text, side, stems) for side in sides]
    if named == [None, None]:
        raise _refused(text, "rest of what? one side must name stems", EXAMPLE)
    target, context = (_or_rest(side, other, stems) for side, other in (named, named[::-1]))
    both = sorted(set(target) & set(context))
    if both:
        raise _refused(text, f"{both[0]} stands on both sides: it would be copied", "name it once")
    if not target or not context:
        raise _refused(text, "nothing is left for `rest`", f"there are {', '.join(stems)}")
    ordered = tuple(sorted(target))
    return Pair(
        "|".join(sides), Selection("+".join(ordered), ordered), tuple(Selection(s, (s,)) for s in sorted(context))
    )


def with_both(
    clips: Sequence[Clip], pair: Pair, versions: Sequence[Version], channels: int, silence_db: float
) -> tuple[list[Clip], list[Rejection]]:
    """The clips in which the context sounds too, and what is left out of each track, counted."""
    stems = {(version.track.source_sha256, version.stems): version for version in versions}
    kept: list[Clip] = []
    left_out: dict[str, list[Clip]] = {}
    for clip in clips:
        context = [stems[clip.version.track.source_sha256, stem.name] for stem in pair.context]
        if active_share(clip, context, channels, silence_db) >= ACTIVE_SHARE:
            kept.append(clip)
        else:
            left_out.setdefault(clip.version.track.song.relative, []).append(clip)
    return kept, [Rejection(f"pair {pair.name}", song, _why(pair, alone, clips)) for song, alone in left_out.items()]


def active_share(clip: Clip, context: Sequence[Version], channels: int, silence_db: float) -> float:
    """In how much of a clip the loudest context stem is above silence, and not far below the clip's own level."""
    own = _levels(clip, clip.version, channels)
    loudest = np.max([_levels(clip, version, channels)[: len(own)] for version in context], axis=0)
    if not len(own) or not len(loudest):
        return 0.0
    own_db = 10 * np.log10(np.mean(10 ** (own / 10)))
    return float(np.mean((loudest > silence_db) & (loudest > own_db - FAR_BELOW_DB)))


def _levels(clip: Clip, version: Version, channels: int) -> np.ndarray:
    scan = version.scan.for_channels(channels)
    first = round(clip.segment.start_sec / scan.window_sec)
    last = round((clip.segment.start_sec + clip.segment.duration_sec) / scan.window_sec)
    padded = [*scan.levels_db[first:last], *[-200.0] * max(0, last - len(scan.levels_db))]
    return np.asarray(padded[: last - first])


def _why(pair: Pair, alone: Sequence[Clip], clips: Sequence[Clip]) -> str:
    song = alone[0].version.track.song.relative
    total = sum(clip.version.track.song.relative == song for clip in clips)
    where = ", ".join(
        f"{clip.segment.start_sec:.0f}-{clip.segment.start_sec + clip.segment.duration_sec:.0f}" for clip in alone[:5]
    )
    more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
    return f"{len(alone)} of {total} clips: {pair.context_name} hardly sounds there (seconds {where}{more})"


def _stems_in(text: str, side: str, stems: Sequence[str]) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in side.split("+"))
    for part in parts:
        if part in (MIX, INSTRUMENTAL):
            raise _refused(text, f"{part} holds several stems", "name stems, or `rest` for all the others")
        if part not in stems:
            near = difflib.get_close_matches(part, [*stems, REST], n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise _refused(text, f"there is no stem {part!r}", f"{guess}there are {', '.join(stems)}, and rest")
    if len(set(parts)) < len(parts):
        raise _refused(text, "a stem is named twice", "name each stem once")
    return parts


def _or_rest(side: tuple[str, ...] | None, other: tuple[str, ...] | None, stems: Sequence[str]) -> tuple[str, ...]:
    return side if side is not None else tuple(stem for stem in stems if stem not in (other or ()))


def _refused(text: str, what: str, fix: str) -> UserError:
    return UserError(f"pair {text!r}: {what}", where="--pair", fix=fix)
