"""Prompts over time: which text counts at a second, with cross-fades between neighbours.

`0:00 calm piano`, `0:15 add drums`: the second prompt takes over at 15 s. Around a change the two are mixed in what
the model follows, so the music moves from one to the other instead of jumping.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from configs.errors import UserError

Text = TypeVar("Text")
Other = TypeVar("Other")

FADE_SEC = 2.0
"""How long a cross-fade takes, centred on the change."""


@dataclass(frozen=True)
class PromptSchedule(Generic[Text]):
    """Texts in order, each with the second at which it begins. `Text` is a prompt, or its states."""

    starts_sec: Sequence[float]
    texts: Sequence[Text]
    fade_sec: float = FADE_SEC

    @classmethod
    def of(cls, text: Text) -> "PromptSchedule[Text]":
        """One text from beginning to end."""
        return cls((0.0,), (text,))

    def shares(self, second: float) -> list[float]:
        """How much each text counts at this moment; they sum to 1."""
        fades = [self._risen(number, second) for number in range(len(self.texts))] + [0.0]
        return [risen - later for risen, later in pairwise(fades)]

    def read_as(self, read: Callable[[Text], Other]) -> "PromptSchedule[Other]":
        """The same with other texts, such as their states."""
        return PromptSchedule(self.starts_sec, [read(text) for text in self.texts], self.fade_sec)

    def _risen(self, number: int, second: float) -> float:
        """0 before text `number` begins, 1 once it has faded in. Never more than the text before it."""
        if number == 0:
            return 1.0
        start = self.starts_sec[number]
        room = min(self.fade_sec, start - self.starts_sec[number - 1])
        if number + 1 < len(self.starts_sec):
            room = min(room, self.starts_sec[number + 1] - start)
        if room <= 0:
            return float(second >= start)
        return min(1.0, max(0.0, (second - start) / room + 0.5))


_LINE = re.compile(r"^\s*(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)\s+(\S.*)$")


def read_prompt_schedule(lines: Sequence[str]) -> PromptSchedule[str]:
    """`0:15 add drums`, `1:02.5 …`, `90 …`: a moment, then the prompt from there on.

    Raises:
        UserError: a line has no moment, the first is not at 0, or moments do not rise.
    """
    starts, prompts = [], []
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            raise UserError(f"a story line needs a moment and a prompt, not {line!r}", fix='e.g. "0:15 add drums"')
        hours, minutes, seconds, prompt = found.groups()
        starts.append(int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds))
        prompts.append(prompt.strip())
    if not starts or starts[0] != 0:
        raise UserError("a story must begin at 0:00", fix='e.g. --story "0:00 calm piano" "0:15 add drums"')
    if any(later <= earlier for earlier, later in pairwise(starts)):
        raise UserError("the moments of a story must rise", fix='e.g. "0:00 calm piano" "0:15 add drums"')
    return PromptSchedule(tuple(starts), tuple(prompts))
