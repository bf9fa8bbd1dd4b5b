"""The composer's tables: instruments by family, drum figures, and the manners that combine them.

Steel drums, kalimba and 6/8 stand apart in ISLAND: that manner is never drawn for training, so that a fine-tuned
starter has something to learn that it cannot have heard.
"""

from dataclasses import dataclass

# General MIDI programs, counted from 0, and a good octave for the lead (the lowest pitch of a range of two octaves).
FAMILIES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "piano": (("grand piano", 0, 60), ("electric piano", 4, 60)),
    "guitar": (("nylon guitar", 24, 55), ("steel guitar", 25, 55)),
    "strings": (("violin section", 48, 60), ("cello section", 49, 52)),
    "brass": (("trumpet", 56, 58), ("brass section", 61, 55)),
    "organ": (("church organ", 19, 55), ("rock organ", 18, 58)),
    "synth": (("saw lead", 81, 60), ("square lead", 80, 60)),
    "mallets": (("vibraphone", 11, 60), ("marimba", 12, 60), ("glockenspiel", 9, 72)),
    "flute": (("flute", 73, 67), ("recorder", 74, 67)),
}
ISLAND_INSTRUMENTS = (("steel drums", 114, 60), ("kalimba", 108, 60))
BASSES = {"acoustic": ("acoustic bass", 32), "fingered": ("finger bass", 33), "synth": ("synth bass", 38)}

KICK, RIM, SNARE, CLOSED, OPEN, RIDE, SHAKER, TOM = 36, 37, 38, 42, 46, 51, 70, 45

# One bar of each drum: positions in beats.
DRUM_FIGURES: dict[str, dict[int, tuple[float, ...]]] = {
    "rock": {KICK: (0, 2, 2.5), SNARE: (1, 3), CLOSED: (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)},
    "pop": {KICK: (0, 2), SNARE: (1, 3), CLOSED: (0, 1, 2, 3)},
    "funk": {KICK: (0, 0.75, 2.5), SNARE: (1, 3, 3.75), CLOSED: tuple(i / 4 for i in range(16))},
    "house": {KICK: (0, 1, 2, 3), OPEN: (0.5, 1.5, 2.5, 3.5), SNARE: (1, 3)},
    "swing": {RIDE: (0, 1, 1.67, 2, 3, 3.67), KICK: (0, 2), RIM: (1, 3)},
    "waltz": {KICK: (0,), RIM: (1, 2)},
    "bossa": {KICK: (0, 1.5, 2, 3.5), RIM: (0, 1.5, 3), SHAKER: (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)},
    "march": {SNARE: (0, 1, 1.5, 2, 3, 3.25, 3.5, 3.75), KICK: (0, 2)},
    "six-eight": {KICK: (0, 1), SHAKER: (0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3), TOM: (2 / 3, 5 / 3)},
}


@dataclass(frozen=True)
class Manner:
    """A way of playing. `chords` and `bass` name figures in `starter.recipe.figures`; `lead` is notes per beat."""

    name: str
    tempo_bpm: tuple[int, int]
    chords: str
    bass: str
    lead: float
    drums: str = ""
    beats_per_bar: int = 4
    divisions: int = 2
    bass_kind: str = "fingered"


MANNERS = (
    Manner("ballad", (70, 92), "arpeggio", "long", 1.0),
    Manner("hymn", (70, 100), "block", "long", 0.8),
    Manner("folk", (90, 130), "strum", "two", 1.3, bass_kind="acoustic"),
    Manner("pop", (95, 125), "pulse", "pulse", 1.3, "pop"),
    Manner("rock", (110, 150), "pulse", "pulse", 1.4, "rock"),
    Manner("funk", (96, 118), "offbeat", "syncopated", 1.6, "funk", divisions=4),
    Manner("house", (118, 130), "offbeat", "pulse", 1.3, "house", bass_kind="synth"),
    Manner("swing", (120, 160), "offbeat", "walking", 1.3, "swing", bass_kind="acoustic"),
    Manner("waltz", (90, 160), "waltz", "long", 1.0, "waltz", beats_per_bar=3, bass_kind="acoustic"),
    Manner("bossa nova", (110, 140), "bossa", "two", 1.2, "bossa", bass_kind="acoustic"),
    Manner("march", (100, 126), "block", "two", 1.4, "march"),
    Manner("lullaby", (70, 88), "arpeggio", "long", 0.9),
)
ISLAND = Manner("island", (112, 132), "six-eight", "six-eight", 2.4, "six-eight", 2, divisions=3, bass_kind="acoustic")
"""The demo's style, left out of all training. Its beat is the dotted quarter: two to a bar of 6/8."""
