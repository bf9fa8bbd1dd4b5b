"""Captions → text states, each distinct caption once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.base_files import BaseFiles
from data_prep.cache import Cache
from data_prep.prepared import text_state_name
from data_prep.progress import stage
from data_prep.text_encoders.port import load_text_encoder

_BATCH = 64


@dataclass(frozen=True)
class TextState:
    """Where the states of a caption are stored, the name they have in a dataset, and whether the encoder could read
    only the caption's beginning.
    """

    path: Path
    cut: bool
    file_name: str


def encode_captions(
    captions: Iterable[str], files: BaseFiles, fingerprint: str, cache: Cache, *, device: torch.device
) -> dict[str, TextState]:
    """The stored states of every caption. The encoder is loaded only when some are not in the cache."""
    names = {caption: text_state_name(caption, fingerprint) for caption in sorted(set(captions))}
    cut: dict[str, bool] = {}
    with stage("text states", len(names), unit="captions") as progress:
        for caption, name in names.items():
            known = cache.read_tensors("texts", name)
            if known is not None:
                cut[caption] = bool(known["cut"][0])
                progress.advance(reused=True)
        todo = [caption for caption in names if caption not in cut]
        encoder = load_text_encoder(files, device) if todo else None
        for first in range(0, len(todo), _BATCH):
            assert encoder is not None
            batch = todo[first : first + _BATCH]
            for caption, states in zip(batch, encoder.encode(batch), strict=True):
                cut[caption] = encoder.is_too_long(caption)
                arrays = {"states": states.numpy(), "cut": np.array([cut[caption]], dtype=np.uint8)}
                cache.write_tensors("texts", names[caption], arrays)
                progress.advance()
    return {
        caption: TextState(cache.path("texts", name, ".safetensors"), cut[caption], f"{name}.safetensors")
        for caption, name in names.items()
    }
