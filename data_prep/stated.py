"""What a caption states already of tempo, speed and key, so that no second, other statement is put beside it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from data_prep.musical_keys import find_keys
from data_prep.tempo_words import contradicts, find_speeds, find_tempi, states_tempo


@dataclass
class Stated:
    """Grows with every text that is added; the first one to state a thing is the only one."""

    tempo: bool = False
    """A tempo in numbers has been stated."""
    key: bool = False
    speeds: set[str] = field(default_factory=set)
    """Of slow, mid-tempo and fast."""

    @classmethod
    def by(cls, texts: Iterable[str]) -> "Stated":
        """What these texts state together."""
        stated = cls()
        for text in texts:
            stated.add(text)
        return stated

    def add(self, text: str) -> None:
        """Count a text that will be said whatever it states: the owner's words."""
        self.tempo |= states_tempo(text)
        self.key |= bool(find_keys(text))
        self.speeds |= find_speeds(text)

    def take(self, text: str) -> bool:
        """Whether a text may stand beside what has been stated; if so it counts from now on.

        It may not if it states a tempo, speed or key where one has been stated, or two tempi or keys by itself.
        """
        tempi, keys, speeds = find_tempi(text), find_keys(text), find_speeds(text)
        if len(tempi) > 1 or len(keys) > 1 or len(speeds) > 1:
            return False
        if (states_tempo(text) and self.tempo) or (keys and self.key) or (speeds and self.speeds):
            return False
        if any(contradicts(bpm, self.speeds | speeds) for bpm in tempi):
            return False
        self.add(text)
        return True
