"""Melody bases, transformers' whole models of them, and conditions, for the tests of the melody family."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.base_files import BaseFiles
from data_prep.debug_base import write_debug_base

TEXT_WIDTH, N_CHROMA = 12, 12


def melody_base(folder: Path, channels: int = 1) -> BaseFiles:
    """A tiny melody base on disk."""
    return BaseFiles("melody-base", None, write_debug_base(folder, melody=True, audio_channels=channels))


def whole_model(files: BaseFiles) -> Any:
    """Transformers' own model."""
    from transformers import MusicgenMelodyForConditionalGeneration

    return MusicgenMelodyForConditionalGeneration.from_pretrained(files.folder).eval()


def a_melody(n: int, seed: int = 0) -> Tensor:
    """One-hot pitch classes [n, 12]."""
    classes = torch.randint(0, N_CHROMA, (n,), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(classes, N_CHROMA).float()


def token_ids(n: int, seed: int = 0) -> Tensor:
    """Ids of a made-up text [n], for the debug base's vocabulary."""
    return torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def states_of(model: Any, ids: Tensor) -> Tensor:
    """The text encoder's states [n, D_text]."""
    return model.text_encoder(input_ids=ids[None]).last_hidden_state[0]
