"""What the base is asked to play so that an adapter leaves it alone: other music of many kinds, in plain words.

Few prompts are learnt by heart: thirteen held on to themselves and to little else. So there are many, each once, and
some of the dataset's own captions without the trigger: these are what a person asks for who leaves it out.
"""

import random
from collections.abc import Iterator, Sequence

from configs.train import TrainSettings
from data_prep.captions import says_trigger

KINDS = (
    "ballad", "rock", "folk", "house", "waltz", "jazz", "march", "pop", "lullaby", "funk", "blues", "swing", "hymn",
    "bossa nova", "country", "techno", "reggae", "classical", "soul", "metal", "ambient", "disco", "tango", "hip hop",
)  # fmt: skip
LEADS = (
    "piano", "guitar", "strings", "brass", "organ", "synth", "mallets", "flute", "violin", "electric piano",
    "saxophone",
)  # fmt: skip
OWN_SHARE = 8
"""Every eighth piece is played for one of the dataset's own captions."""


def prompts_for(settings: TrainSettings, bare: Sequence[str], trigger: str) -> list[str]:
    """A prompt for each of `prior_pieces`: those of the settings in turn, or else other music and own captions.

    Args:
        settings: of the run.
        bare: the dataset's captions without the trigger.
        trigger: none of the prompts says it.
    """
    count = settings.prior_pieces
    if settings.prior_prompts:
        return [settings.prior_prompts[number % len(settings.prior_prompts)] for number in range(count)]
    own = sorted(set(bare))
    others = (prompt for prompt in other_music() if not says_trigger(prompt, trigger))
    return [
        own[number // OWN_SHARE % len(own)] if own and number % OWN_SHARE == 0 else next(others)
        for number in range(count)
    ]


def other_music() -> Iterator[str]:
    """Prompts without end, the same ones each time: kinds and leads in turn, so that every pair comes up."""
    chance = random.Random(0)
    number = 0
    while True:
        bpm = chance.randint(66, 160)
        speed = "slow" if bpm < 90 else "fast" if bpm >= 125 else "medium tempo"
        kind, lead = KINDS[number % len(KINDS)], LEADS[number % len(LEADS)]
        yield f"{speed} {kind}, {lead}, {'with' if chance.random() < 0.5 else 'no'} drums, {bpm} bpm"
        number += 1
