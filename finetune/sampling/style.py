"""The style of a recording, alone or beside a prompt's words: for bases whose texts are places among styles."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from torch import Tensor

from adapters.decode.prompt_mix import PromptMix
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.sampler import Sampler
from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.style_tokens import RATE_HZ

if TYPE_CHECKING:
    from finetune.sampling.line import Request, Words

SILENT = 1e-4
"""A recording whose every sample is below this (-80 dB of full scale) has no style."""


@dataclass(frozen=True)
class PieceStyle:
    """A recording's style as the model takes it, and its weight beside words, 0 to 1."""

    entry: Int[Tensor, "1 12"]
    weight: float
    said: str
    """For people: what was read."""

    def beside(self, words: "Words") -> PromptMix[str | Tensor]:
        """This style and the words, by their weights; alone where there are no words."""
        if isinstance(words, PromptSchedule):
            raise TypeError("a story has its own moments: `read_line` refuses it beside a style")
        texts, shares = ([words], [1.0]) if isinstance(words, str) else (list(words.texts), list(words.after))
        if texts == [""]:
            return PromptMix.of([self.entry], [1.0])
        return PromptMix.of([*texts, self.entry], [*(share * (1 - self.weight) for share in shares), self.weight])


def refuse_unfollowed_style(request: "Request", files: BaseFiles) -> None:
    """Styles are for bases whose words are turned into styles.

    Raises:
        UserError: this one's are not.
    """
    if request.style is not None and (files.format.text_encoder != "style" or files.move.text is not None):
        raise UserError(
            f"this base takes its style from words alone: --style {request.style.name} would change nothing",
            fix="leave --style out, or use a base that does, e.g. google/magenta-realtime-2",
        )


def read_style(request: "Request", sampler: Sampler) -> PieceStyle | None:
    """The mean style of every 10 s of a recording; None where none is asked for.

    Raises:
        UserError: the recording cannot be read, or is silent.
    """
    path = request.style
    if path is None:
        return None
    assert sampler.encode_sound is not None
    audio = _audio(path)
    if not audio.size or np.abs(audio).max() < SILENT:
        raise UserError("there is no sound to take a style from", where=str(path), fix="give another recording")
    said = f"style of {path.name}, {audio.shape[1] / RATE_HZ:.1f} s"
    if any(words != "" for words in request.prompts):
        said += f", at {request.style_weight:g} beside the words"
    return PieceStyle(sampler.encode_sound(audio, RATE_HZ), request.style_weight, said)


def _audio(path: Path) -> np.ndarray:
    """In mono, at the style model's rate."""
    from data_prep.decode import AudioError, stream

    try:
        blocks = list(stream(path, sample_rate_hz=RATE_HZ, channels=1))
    except (AudioError, OSError) as error:
        raise UserError(f"cannot read the style: {error}", where=str(path), fix="give an audio file") from error
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
