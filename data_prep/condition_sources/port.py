"""The port of what makes a condition out of audio: a melody, another player's codes, beats.

A source is asked once per clip, in data preparation, and once for a recording that a new piece should follow. Its
values are kept beside the tokens. The kind's name, width and rate stand in the model's description (`ConditionKind`).
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from data_prep.lm_spec import ConditionKind
from data_prep.stems import MIX, REST, Selection, parse_selection, rest_of


class ConditionSource(ABC):
    """How the values of one kind of condition are made."""

    kind: str
    version: int
    """Part of the names under which values are cached; a change that changes values raises it."""
    usual: str
    """Which audio it reads where nobody says: `mix`, or what `selection` understands."""

    def selection(self, asked: str, version: str, separator: str) -> Selection | None:
        """The stems that the condition of a clip is read from, or None where such a clip has none.

        `mix`: the clip as it is. `rest`: of its own stems, all but drums and bass. Else stems of the track.

        Args:
            asked: what the settings say, or `usual`.
            version: the stems that the clip itself consists of (`mix`, `vocals`, …).
            separator: name of the separation model.

        Raises:
            UserError: nobody can make sense of what is asked.
        """
        if asked.strip().lower() == REST:
            return rest_of(separator, version)
        wanted = parse_selection(asked)
        return parse_selection(version) if wanted.name == MIX else wanted

    @abstractmethod
    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """Rate of the audio that it reads."""

    @abstractmethod
    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """Everything but the audio that values depend on: JSON values, for the cache and for prep.yaml."""

    @abstractmethod
    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Num[np.ndarray, "n width"] | None:
        """Values of mono audio at `sample_rate_hz`; None where it has none (silence, say): the null condition."""
