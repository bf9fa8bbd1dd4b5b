"""Several prompts at once, each with a weight, and a cross-fade from one mix to the next.

The mix is taken where the model listens: the text that a step follows is the weighted mean of what cross-attention
gives for each (see `Blend` in engine.py); where texts are styles, the style of their mean (`MixTexts` in
generation.py). A prompt schedule plans changes beforehand; a mix is what somebody sets while
the music plays.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.errors import UserError

Text = TypeVar("Text")
Other = TypeVar("Other")

FADE_SEC = 2.0
"""How long one mix takes to become the next, unless said."""


@dataclass(frozen=True)
class PromptMix(Generic[Text]):
    """Texts, and how their shares move from `before` to `after` between two seconds of the piece."""

    texts: Sequence[Text]
    before: Sequence[float]
    after: Sequence[float]
    start_sec: float = 0.0
    fade_sec: float = 0.0

    @classmethod
    def of(cls, texts: Sequence[Text], weights: Sequence[float]) -> "PromptMix[Text]":
        """These texts from beginning to end; only the ratio of the weights counts. The same text twice is one.

        Raises:
            UserError: no text, a weight below 0, or none above.
        """
        texts, shares = _shares(texts, weights)
        return cls(texts, shares, shares)

    def moved(
        self, texts: Sequence[Text], weights: Sequence[float], second: float, fade_sec: float = FADE_SEC
    ) -> "PromptMix[Text]":
        """From this mix, as it is at `second`, to another one. Texts that both have keep their place.

        Raises:
            UserError: as for `of`.
        """
        texts, wanted = _shares(texts, weights)
        now = zip(self.texts, self.shares(second), strict=True)
        every, before = _joined([(text, share) for text, share in now if share > 0] + [(text, 0.0) for text in texts])
        _, after = _joined([(text, 0.0) for text in every] + list(zip(texts, wanted, strict=True)))
        return PromptMix(every, before, after, second, fade_sec)

    def shares(self, second: float) -> list[float]:
        """How much each text counts at this moment; they sum to 1."""
        passed = 1.0 if self.fade_sec <= 0 else min(1.0, max(0.0, (second - self.start_sec) / self.fade_sec))
        return [old + (new - old) * passed for old, new in zip(self.before, self.after, strict=True)]

    def read_as(self, read: Callable[[Text], Other]) -> "PromptMix[Other]":
        """The same with other texts, such as their states."""
        return PromptMix([read(text) for text in self.texts], self.before, self.after, self.start_sec, self.fade_sec)


_WEIGHED = re.compile(r"^\s*(\d+(?:\.\d+)?|\.\d+)\s+(\S.*?)\s*$")


def read_prompt_mix(parts: Sequence[str]) -> PromptMix[str]:
    """`0.7 calm piano`, `0.3 fast drums`: a weight, then the prompt.

    Raises:
        UserError: a part has no weight or no prompt, or all weights are 0.
    """
    found = [_WEIGHED.match(part) for part in parts]
    wrong = next((part for part, match in zip(parts, found, strict=True) if match is None), None)
    if wrong is not None:
        raise UserError(f"a part of a mix needs a weight and a prompt, not {wrong!r}", fix='e.g. "0.7 calm piano"')
    weighed = [match.groups() for match in found if match is not None]
    return PromptMix.of([prompt for _, prompt in weighed], [float(weight) for weight, _ in weighed])


def _shares(texts: Sequence[Text], weights: Sequence[float]) -> tuple[list[Text], list[float]]:
    total = sum(weights)
    if not texts or min(weights) < 0 or not 0 < total < float("inf"):
        raise UserError("prompts need weights of 0 or more, one of them above 0", fix="e.g. 1 for a single prompt")
    return _joined([(text, weight / total) for text, weight in zip(texts, weights, strict=True)])


def _joined(weighed: Sequence[tuple[Text, float]]) -> tuple[list[Text], list[float]]:
    """Each text once, in order, with the sum of its weights."""
    texts: list[Text] = []
    sums: list[float] = []
    for text, weight in weighed:
        place = next((number for number, other in enumerate(texts) if _same(other, text)), len(texts))
        if place == len(texts):
            texts.append(text)
            sums.append(0.0)
        sums[place] += weight
    return texts, sums


def _same(one: object, other: object) -> bool:
    """Words are compared; text states only with themselves."""
    return one is other or (isinstance(one, str) and one == other)
