"""What is played for an evaluation: prompts and seeds, the same for the base and for every adapter it is compared with.

Four kinds. `own` prompts should bring the style out; `bare` ones are the same without the trigger; `foreign` ones ask
for other music, which should stay as the base plays it; `taught` ones are captions of training clips, which ask for
copies if anything does. A prompt comes up again with another seed when there are fewer
prompts than pieces, which is what shows whether seeds still make a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import UserError
from configs.evaluate import EvaluateSettings
from data_prep.captions import says_trigger, without_trigger
from data_prep.prepared import PreparedDataset

Kind = Literal["own", "bare", "foreign", "taught"]
KINDS: tuple[Kind, ...] = ("own", "bare", "foreign", "taught")
MIN_SEEDS = 2
"""Each prompt is played from at least so many seeds, as far as the number of pieces goes."""
FEW_PROMPTS = 6
FOREIGN = (
    "medium tempo blues, guitar, with drums, 100 bpm",
    "slow march, brass, no drums, 80 bpm",
    "fast folk, flute, with drums, 132 bpm",
    "medium tempo jazz, piano, with drums, 120 bpm",
    "slow pop, strings, with drums, 88 bpm",
    "fast house, synth, with drums, 126 bpm",
    "slow ballad, guitar, no drums, 70 bpm",
    "medium tempo waltz, organ, no drums, 96 bpm",
    "fast funk, brass, with drums, 116 bpm",
    "slow lullaby, piano, no drums, 66 bpm",
    "medium tempo reggae, organ, with drums, 92 bpm",
    "fast classical, strings, no drums, 140 bpm",
    "slow ambient, synth, no drums, 60 bpm",
    "medium tempo rock, guitar, with drums, 112 bpm",
    "fast swing, piano, with drums, 160 bpm",
    "medium tempo country, guitar, no drums, 104 bpm",
)
"""Other music of many kinds, in plain words that a small base understands as well."""


@dataclass(frozen=True)
class Ask:
    """A prompt to play from a seed."""

    kind: Kind
    prompt: str
    seed: int


def plan(settings: EvaluateSettings, own: Sequence[str], trigger: str, taught: Sequence[str] = ()) -> list[Ask]:
    """Every piece to play; half as many bare and taught ones as of the other kinds.

    Raises:
        UserError: nothing to ask for, or a foreign prompt that says the trigger.
    """
    own = _distinct(settings.prompts or own)
    if not own:
        raise UserError(
            "There is no prompt to evaluate with: no held-out caption and none of the adapter's own.",
            fix="Give some: --prompts '[\"slow ballad, piano, in the style of mine\"]', or --data with a dataset.",
        )
    bare = [text for prompt in own if (text := without_trigger(prompt, trigger)) and text != prompt]
    half = max(2, settings.count // 2)
    asked: list[tuple[Kind, Sequence[str], int]] = [
        ("own", own, settings.count),
        ("bare", _distinct(bare), half),
        ("foreign", foreign_prompts(settings, trigger), settings.count),
        ("taught", _distinct(taught), half),
    ]
    return [ask for kind, prompts, count in asked if prompts for ask in _spread(kind, prompts, count, settings.seed)]


def taught_prompts(dataset: PreparedDataset | None) -> list[str]:
    """A caption of each training song."""
    rows = {row.source: row for row in dataset.clips("train")} if dataset else {}
    return [row.captions[0] for row in rows.values() if row.captions]


def own_prompts(dataset: PreparedDataset | None, told: Sequence[str]) -> list[str]:
    """Captions of held-out clips, then what the adapter names; where these are few, captions of training songs too."""
    if dataset is None:
        return list(told)
    captions = [row.captions[0] for row in dataset.clips("validation") if row.captions]
    found = list(dict.fromkeys([*captions, *told]))
    more = [text for text in dict.fromkeys(taught_prompts(dataset)) if text not in found]
    return [*found, *more[: max(0, FEW_PROMPTS - len(found))]]


def foreign_prompts(settings: EvaluateSettings, trigger: str) -> list[str]:
    """What should stay as it is.

    Raises:
        UserError: one of them says the trigger.
    """
    given = settings.foreign_prompts
    wrong = [prompt for prompt in given if trigger and says_trigger(prompt, trigger)]
    if wrong:
        raise UserError(
            "A foreign prompt says the trigger: it cannot tell what the adapter does to other music.",
            where=f"{wrong[0]!r}, trigger {trigger!r}",
            fix="Leave the trigger out of --foreign_prompts.",
        )
    return list(given) or [prompt for prompt in FOREIGN if not (trigger and says_trigger(prompt, trigger))]


def _distinct(prompts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text for prompt in prompts if (text := prompt.strip())))


def _spread(kind: Kind, prompts: Sequence[str], count: int, seed: int) -> list[Ask]:
    """The first half of the pieces takes prompts in turn, the second half the same ones with other seeds."""
    first = seed + 10_000 * KINDS.index(kind)
    distinct = max(1, min(len(prompts), count // MIN_SEEDS))
    return [Ask(kind, prompts[number % distinct], first + number) for number in range(count)]
