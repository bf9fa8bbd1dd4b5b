"""What a caption states already (tempo, speed, key, genre, mood, instruments, voice and so on), so that nothing that
contradicts it is put beside it.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from data_prep.music_words import absent_instruments, genres, goes_with, instruments, is_exclusive, traits
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
    genres: set[str] = field(default_factory=set)
    instruments: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    """Instruments of which it was said that they are missing."""
    exclusive: bool = False
    """The instruments that were named are all there are."""
    traits: dict[str, set[str]] = field(default_factory=dict)
    """Axis (mood, energy, voice …) → the ends of it that were named."""

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
        self.genres |= genres(text)
        self.instruments |= instruments(text)
        self.absent |= absent_instruments(text)
        self.exclusive |= is_exclusive(text)
        for axis, ends in traits(text).items():
            self.traits.setdefault(axis, set()).update(ends)
        if self.exclusive:
            self.traits.setdefault("voice", {"instrumental"})

    def take(self, text: str) -> bool:
        """Whether a text may stand beside what has been stated (`fits`); if so it counts from now on."""
        fits = self.fits(text)
        if fits:
            self.add(text)
        return fits

    def take_each(self, words: Sequence[str]) -> list[str]:
        """Of a list of guesses, those that may stand beside what has been stated and beside each other.

        Several genres may stand beside each other in one list, but not beside another that was stated before.
        """
        so_far, kept = deepcopy(self), []
        for word in words:
            so_far.genres = set()
            if self.fits(word) and so_far.take(word):
                kept.append(word)
        for word in kept:
            self.add(word)
        return kept

    def fits(self, text: str) -> bool:
        """Whether a text states nothing that contradicts what has been stated.

        It does if it states another tempo, speed or key than has been stated, or two tempi or keys by itself; a genre
        that does not go with the stated ones; another mood or energy, a voice where there is none, an instrument that
        is missing, or a second one beside a solo.
        """
        new = Stated.by([text])
        return (
            self._fits_numbers(new)
            and (not self.genres or all(goes_with(genre, self.genres) for genre in new.genres))
            and self._fits_instruments(new)
            and all(ends <= self.traits.get(axis, ends) for axis, ends in new.traits.items())
        )

    def _fits_numbers(self, new: "Stated") -> bool:
        return (
            len(new.tempi) <= 1
            and len(new.keys) <= 1
            and not (new.tempo and self.tempo and not (new.tempi and new.tempi <= self.tempi))
            and not (self.keys and not new.keys <= self.keys)
            and not (self.speeds and not new.speeds <= self.speeds)
            and not any(contradicts(float(bpm), self.speeds | new.speeds) for bpm in new.tempi - self.tempi)
            and not any(contradicts(float(bpm), new.speeds - self.speeds) for bpm in self.tempi)
        )

    def _fits_instruments(self, new: "Stated") -> bool:
        return (
            not (self.exclusive and not new.instruments <= self.instruments)
            and not (new.exclusive and not self.instruments <= new.instruments)
            and not new.instruments & self.absent
            and not new.absent & self.instruments
        )
