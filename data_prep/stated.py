"""What a caption states already of tempo, speed and key, so that no second, other statement is put beside it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from data_prep.musical_keys import find_keys
from data_prep.tempo_words import contradicts, find_speeds, find_tempi, states_tempo


@dataclass
class Stated:
    """Grows with every text that is added; the first one to state a thing is the only one."""

    tempo: bool = False
    """A tempo has been stated, or at least spoken of."""
    tempi: set[int] = field(default_factory=set)
    """In whole beats per minute."""
    keys: set[str] = field(default_factory=set)
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
        self.tempi |= set(map(round, find_tempi(text)))
        self.keys |= set(find_keys(text))
        self.speeds |= find_speeds(text)

    def take(self, text: str) -> bool:
        """Whether a text may stand beside what has been stated; if so it counts from now on.

        It may not if it states another tempo, speed or key than has been stated, or two tempi or keys by itself.
        """
        new = Stated.by([text])
        fits = (
            len(new.tempi) <= 1
            and len(new.keys) <= 1
            and not (new.tempo and self.tempo and not (new.tempi and new.tempi <= self.tempi))
            and not (self.keys and not new.keys <= self.keys)
            and not (self.speeds and not new.speeds <= self.speeds)
            and not any(contradicts(float(bpm), self.speeds | new.speeds) for bpm in new.tempi - self.tempi)
            and not any(contradicts(float(bpm), new.speeds - self.speeds) for bpm in self.tempi)
        )
        if fits:
            self.add(text)
        return fits
