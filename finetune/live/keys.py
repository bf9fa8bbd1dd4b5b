"""Keys that are held, for bases that follow notes.

A key may be tapped and let go between two looks of the music at what is wanted: so it is counted how often each was
struck, and none is lost.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from configs.errors import UserError
from data_prep.note_slots import N_PITCHES

Others = Literal["free", "silent"]
"""The notes that nobody holds: the model's own affair, or silent."""
OTHERS = get_args(Others)
Drums = Literal["free", "on", "off"]
DRUMS = get_args(Drums)


@dataclass(frozen=True)
class Keys:
    """MIDI pitches that are held, how often each was struck since the beginning, and what the others may do."""

    held: tuple[int, ...] = ()
    struck: Mapping[int, int] = field(default_factory=dict)
    others: Others = "free"

    def holding(self, pitches: Collection[int], others: Others | None = None) -> "Keys":
        """These are held from now on; those that were not before are struck.

        Raises:
            UserError: a pitch that does not exist, or another word for the others.
        """
        others = self.others if others is None else others
        if others not in OTHERS:
            raise UserError(f"other notes are {' or '.join(OTHERS)}, not {others!r}")
        if strange := sorted(pitch for pitch in pitches if not 0 <= pitch < N_PITCHES):
            raise UserError(f"a pitch lies between 0 and {N_PITCHES - 1}, not {strange[0]}")
        new = set(pitches) - set(self.held)
        struck = {**self.struck, **{pitch: self.struck.get(pitch, 0) + 1 for pitch in new}}
        return Keys(tuple(sorted(set(pitches))), struck, others)

    def struck_since(self, before: "Keys") -> set[int]:
        """Struck after `before`, whether held still or not."""
        return {pitch for pitch, times in self.struck.items() if times > before.struck.get(pitch, 0)}
