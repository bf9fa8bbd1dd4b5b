"""What turns captions into what the language model follows, by the kind that a base's format names.

A kind is a module with `load(files, device) -> TextEncoder` and `text_encoder_fingerprint(files) -> str`, imported when
used.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from data_prep.base_files import BaseFiles

KINDS = {"t5": "data_prep.text_encoder", "style": "data_prep.text_encoders.style"}
"""Name → the module of the kind."""


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen encoder of texts. `width` is what each of its entries has; ids count as entries too."""

    @property
    def fingerprint(self) -> str:
        """A name for its weights: what different encoders made must not be mixed."""
        ...

    @property
    def width(self) -> int:
        """Numbers per entry."""
        ...

    def is_too_long(self, caption: str) -> bool:
        """Whether only the caption's beginning can be encoded."""
        ...

    def encode(self, captions: Sequence[str]) -> list[Shaped[Tensor, "_ D"]]:
        """The entries [L, D] of each caption, on the CPU, as the language model takes them."""
        ...


@runtime_checkable
class MixingTextEncoder(TextEncoder, Protocol):
    """One whose texts can be mixed before the model hears them, which says more than mixing what it makes of each;
    recordings have a place among them."""

    def mix(self, states: Sequence[Tensor], shares: Sequence[float]) -> Tensor | None:
        """What stands for several texts by their shares, in the place of one; None where it does not know them."""
        ...

    def encode_sound(self, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Shaped[Tensor, "_ D"]:
        """The entries of a recording, as a text's; they can be mixed with texts."""
        ...


def load_text_encoder(files: BaseFiles, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder that a base's language model was trained with, or the one that it is moved to.

    Raises:
        UserError: its files are incomplete, or a package that it needs is not installed.
    """
    if files.move.text is not None:
        from data_prep.text_encoders.transformers_text import load

        return load(files.move.text, device)
    return importlib.import_module(KINDS[files.format.text_encoder]).load(files, device)


def text_encoder_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's text encoder, without loading it as a model.

    Raises:
        UserError: its files are incomplete.
    """
    if files.move.text is not None:
        from data_prep.text_encoders.transformers_text import choose

        return choose(files.move.text.id).fingerprint
    return importlib.import_module(KINDS[files.format.text_encoder]).text_encoder_fingerprint(files)
