"""Which of musicnn's tags become words of a caption, and from what score on.

Thresholds are set on measured precision (docs/listeners.md): pieces rendered with known instruments
(starter/recipe/tagger.py) and 160 excerpts of real music of known kinds. A word that is wrong is learnt, one that is
missing only makes a caption shorter, so they are high. Left out: tags of tempo and loudness, which `features` measures;
"violin" for anything but the clearest case, since trumpets are taken for one; those that no music at hand could test.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["genre", "era", "instrument", "voice", "mood"]


@dataclass(frozen=True)
class TagWord:
    """A tag of one model (`tags`), the word it becomes, and the lowest score (mean over a clip) at which it is said."""

    kind: Kind
    model: str
    tag: str
    threshold: float
    word: str


def _words(kind: Kind, model: str, *entries: tuple[str, float, str] | tuple[str, float]) -> tuple[TagWord, ...]:
    return tuple(
        TagWord(kind, model, entry[0], entry[1], entry[2] if len(entry) == 3 else entry[0]) for entry in entries
    )


WORDS = (
    *_words("genre", "mtt", ("classical", 0.33), ("techno", 0.6), ("electronic", 0.33), ("rock", 0.45), ("pop", 0.4),
            ("dance", 0.5), ("ambient", 0.35), ("metal", 0.4), ("country", 0.4), ("indian", 0.4, "Indian music"),
            ("opera", 0.4)),
    *_words("genre", "msd", ("electronic", 0.45), ("ambient", 0.45), ("rock", 0.45), ("pop", 0.4), ("jazz", 0.6),
            ("metal", 0.45), ("folk", 0.3), ("blues", 0.4), ("soul", 0.4), ("punk", 0.4), ("funk", 0.4),
            ("country", 0.4), ("Hip-Hop", 0.4, "hip hop"), ("House", 0.4, "house"), ("chillout", 0.33, "chill-out"),
            ("experimental", 0.33)),
    *_words("era", "msd", ("60s", 0.4), ("70s", 0.4), ("80s", 0.4)),
    *_words("instrument", "mtt", ("guitar", 0.35), ("piano", 0.42), ("strings", 0.45), ("violin", 0.8), ("cello", 0.2),
            ("flute", 0.3), ("harp", 0.4), ("harpsichord", 0.6), ("sitar", 0.25), ("synth", 0.4), ("drums", 0.25)),
    *_words("voice", "mtt", ("choir", 0.3), ("female", 0.35, "female vocals"), ("male", 0.35, "male vocals"),
            ("female vocal", 0.25, "female vocals"), ("male vocal", 0.25, "male vocals"), ("vocal", 0.25, "vocals")),
    *_words("voice", "msd", ("female vocalists", 0.4, "female vocals"), ("male vocalists", 0.4, "male vocals")),
    *_words("mood", "msd", ("acoustic", 0.3), ("sad", 0.3), ("happy", 0.3), ("Mellow", 0.3, "mellow")),
)  # fmt: skip
MOST_OF_A_KIND: dict[Kind, int] = {"genre": 2, "era": 1, "instrument": 4, "voice": 1, "mood": 1}
"""In the order in which they are said."""
VOICE = tuple(
    [("mtt", tag) for tag in ("vocal", "vocals", "voice", "singing", "female", "male", "woman", "man", "female voice",
                              "female vocal", "male voice", "male vocal", "choir", "choral", "opera")]
    + [("msd", tag) for tag in ("female vocalists", "male vocalists", "female vocalist")]
)  # fmt: skip
VOICE_THRESHOLD = 0.22
"""Of the highest of `VOICE`, for the flag."""
FINGERPRINT = "musicnn-0.1.0 mtt+msd words 2"
"""Changes with every change of what is said."""
