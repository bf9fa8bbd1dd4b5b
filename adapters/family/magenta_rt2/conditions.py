"""What Magenta RealTime 2 hears besides its own past, frame by frame, and the ids the model takes for it.

Every frame has 144 slots: 12 style tokens, 128 notes, one for drums, and three strengths of guidance. Each slot may be
`UNKNOWN` (the strengths may not), which is how a condition is left out: there is no separate null condition.
Guidance is itself a condition: the model was taught to play as if guided that strongly, so one row per piece suffices.

Source of all values and offsets: magenta-rt 2.0.3, `config.py` and `jax/system.py`.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from adapters.conditions import Condition, Conditions
from adapters.family.magenta_rt2.spec import DRUMS as DRUMS_KIND
from adapters.family.magenta_rt2.spec import NOTES, PREVIOUS, STRENGTHS, STYLE
from data_prep.lm_spec import TEXT
from data_prep.magenta_rt2.sizes import N_CONDITION_IDS, N_NOTES, N_RESERVED, N_STYLE_TOKENS, STYLE_CARD
from data_prep.note_slots import HELD, OFF, ONSET

KIND_NAMES = (STYLE, NOTES, DRUMS_KIND, STRENGTHS)
UNKNOWN = -1
"""In style, notes and drums: nothing is said of it, the model is free."""
NOTE_OFF, NOTE_HELD, NOTE_ONSET, NOTE_ON = OFF, HELD, ONSET, 3
"""A note slot (the index is the MIDI pitch): silent; sounding since before; struck in this frame; sounding, struck or
held as the model likes."""
NO_DRUMS, DRUMS = 0, 1
STRENGTH_LOWEST, STRENGTH_HIGHEST = -1.0, 7.0
STRENGTH_STEPS = (0.2, 0.2, 1.0)
"""Grid of the strengths for style, notes and drums."""
PLAYED_STRENGTHS = (3.0, 1.0, 1.0)
"""What the official player uses. 0 is the model without guidance."""
ID_OFFSET = N_RESERVED + 1
"""A value v has the id v + 7 in its slot: 6 reserved ids, then the one for `UNKNOWN`."""


def strength_bins(style: float = 3.0, notes: float = 1.0, drums: float = 1.0) -> tuple[int, int, int]:
    """Strengths of guidance from -1 to 7 on their grid, as condition values; what lies outside is moved to the end.

    A strength s stands for logits + s · (logits − logits without that condition): 0 is no guidance.
    """
    return tuple(  # pyright: ignore[reportReturnType]
        round((min(max(strength, STRENGTH_LOWEST), STRENGTH_HIGHEST) - STRENGTH_LOWEST) / step)
        for strength, step in zip((style, notes, drums), STRENGTH_STEPS, strict=True)
    )


@dataclass(frozen=True)
class MagentaConditions:
    """The conditions of a batch, per frame (T frames) or the same for all frames (T = 1).

    `style` holds style tokens 0 … 1023 per quantiser level, `notes` a state per MIDI pitch, `drums` 0 or 1; all three
    may hold `UNKNOWN`. `strengths` holds bins, see `strength_bins`: the first two 0 … 40, the third 0 … 8.
    """

    style: Int[Tensor, "B T 12"]
    notes: Int[Tensor, "B T 128"]
    drums: Int[Tensor, "B T 1"]
    strengths: Int[Tensor, "B T 3"]

    @staticmethod
    def unknown(
        n_rows: int,
        n_frames: int = 1,
        *,
        strengths: tuple[float, float, float] = PLAYED_STRENGTHS,
        device: torch.device | str = "cpu",
    ) -> "MagentaConditions":
        """Nothing said of style, notes and drums: what a condition is compared with."""

        def slots(count: int) -> Tensor:
            return torch.full((n_rows, n_frames, count), UNKNOWN, dtype=torch.long, device=device)

        bins = torch.tensor(strength_bins(*strengths), device=device).expand(n_rows, n_frames, 3)
        return MagentaConditions(slots(N_STYLE_TOKENS), slots(N_NOTES), slots(1), bins)

    @staticmethod
    def of_kinds(conditions: Conditions, n_rows: int) -> "MagentaConditions":
        """The same from values and masks by kind: what is absent or masked is unknown, strengths are those played.

        Kinds with one entry hold for all frames; the others have one entry per frame. Where no style of the sound is
        given, the style is that of the text.

        Raises:
            ValueError: two kinds are for different numbers of frames.
        """
        found = {name: conditions.by_kind[name] for name in KIND_NAMES if name in conditions.by_kind}
        if TEXT in conditions.by_kind:
            found[STYLE] = _first_of(found.get(STYLE), conditions[TEXT])
        counts = {condition.values.shape[1] for condition in found.values()} - {1}
        if len(counts) > 1:
            raise ValueError(f"conditions for different numbers of frames: {sorted(counts)}")
        n_frames = max(counts, default=1)
        device = next((condition.values.device for condition in found.values()), "cpu")
        plain = MagentaConditions.unknown(n_rows, n_frames, device=device)
        given = {
            name: torch.where(condition.mask[..., None], condition.values.long(), getattr(plain, name)[:, :1])
            for name, condition in found.items()
        }
        return replace(plain, **{name: slots.expand(-1, n_frames, -1) for name, slots in given.items()})

    @property
    def n_rows(self) -> int:
        """B."""
        return self.style.shape[0]

    @property
    def n_frames(self) -> int:
        """T; 1 also means `for as long as it lasts`."""
        return self.style.shape[1]

    def dropped(self, rows: Bool[Tensor, " B"]) -> "MagentaConditions":
        """The same with style, notes and drums unknown in these rows; the strengths stay."""
        chosen = rows.to(self.style.device)[:, None, None]
        hidden = {name: getattr(self, name).masked_fill(chosen, UNKNOWN) for name in ("style", "notes", "drums")}
        return replace(self, **hidden)

    def frames(self, start: int, stop: int) -> "MagentaConditions":
        """Those of a stretch of frames; conditions that are the same for all frames stay as they are."""
        return self if self.n_frames == 1 else self._each(lambda slots: slots[:, start:stop])

    def without_repeats(self) -> "MagentaConditions":
        """The same for a reader with whom the last frame stays: those at the end that say it again are left out."""
        slots = torch.cat([self.style, self.notes, self.drums, self.strengths], dim=-1)  # [B, T, 144]
        changes = (slots[:, 1:] != slots[:, :-1]).any(-1).any(0).nonzero()
        return self.frames(0, int(changes[-1]) + 2 if len(changes) else 1)

    def rows(self, index: Int[Tensor, " n"]) -> "MagentaConditions":
        """Those of chosen rows."""
        return self._each(lambda slots: slots[index.to(slots.device)])

    def to(self, device: torch.device | str) -> "MagentaConditions":
        """The same on a device."""
        return self._each(lambda slots: slots.to(device))

    def ids(self) -> Int[Tensor, "B T 144"]:
        """The ids of all slots, as the model's embeddings count them.

        Raises:
            ValueError: a value is outside its slot's range.
        """
        ranges = ((self.style, UNKNOWN, STYLE_CARD), (self.notes, UNKNOWN, 4), (self.drums, UNKNOWN, 2))
        strengths = ((self.strengths[..., :2], 0, 41), (self.strengths[..., 2:], 0, 9))
        names = ("style", "notes", "drums", "strengths", "strength of drums")
        for name, (values, lowest, end) in zip(names, ranges + strengths, strict=True):
            if values.numel() and not values.is_meta and (int(values.min()) < lowest or int(values.max()) >= end):
                raise ValueError(f"{name}: values must lie in {lowest} … {end - 1}")
        ids = torch.cat([self.style, self.notes, self.drums, self.strengths], dim=-1).long() + ID_OFFSET
        assert ids.shape[-1] == N_CONDITION_IDS
        return ids

    def _each(self, change) -> "MagentaConditions":
        return MagentaConditions(*(change(slots) for slots in (self.style, self.notes, self.drums, self.strengths)))


def codes_before(conditions: Conditions) -> tuple[Int[Tensor, "B K"], Bool[Tensor, " B"]] | None:
    """The frame before the first of each row, and which rows have one; None where no row has."""
    before = conditions.get(PREVIOUS)
    if before is None or not (before.mask.is_meta or bool(before.mask.any())):
        return None
    return before.values[:, 0], before.mask[:, 0]


def _first_of(first: Condition | None, second: Condition) -> Condition:
    """The first where it is said, else the second, which has one entry for all frames."""
    if first is None:
        return second
    mask = first.mask | second.mask
    return Condition(torch.where(first.mask[..., None], first.values, second.values), mask)
