"""What turns captions into what the language model follows, by the kind that a base's format names.

A kind is a module with `load(files, device) -> TextEncoder` and `text_encoder_fingerprint(files) -> str`, imported when
used.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
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
    """An encoder whose texts lie in a space of their own, where a place between several has entries too."""

    def encode_mix(self, captions: Sequence[str], weights: Sequence[float]) -> Shaped[Tensor, "_ D"]:
        """The entries of the weighted mean of these texts."""
        ...


def load_text_encoder(files: BaseFiles, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder that a base's language model was trained with.

    Raises:
        UserError: its files are incomplete, or a package that it needs is not installed.
    """
    return importlib.import_module(KINDS[files.format.text_encoder]).load(files, device)


def text_encoder_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's text encoder, without loading it as a model.

    Raises:
        UserError: its files are incomplete.
    """
    return importlib.import_module(KINDS[files.format.text_encoder]).text_encoder_fingerprint(files)
