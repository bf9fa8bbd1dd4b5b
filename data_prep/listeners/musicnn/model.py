"""The two trained musicnn models that come with Woodshed, run on audio: tag scores and features of a clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from data_prep.listeners.musicnn.log_mel import log_mel, patches
from data_prep.listeners.musicnn.network import Musicnn

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("mtt", "msd")
"""MagnaTagATune: instruments, voice, tempo, mood. Million Song Dataset: genre, era, mood."""


@dataclass(frozen=True)
class TagScores:
    """What one model says of one clip, as the mean over its patches."""

    scores: Float[np.ndarray, " 50"]
    """How likely each tag is, 0 to 1, in the model's order (`tags`)."""
    hidden: Float[np.ndarray, " 200"]
    pooled: Float[np.ndarray, " 1506"]


@lru_cache(maxsize=2)
def load_musicnn(name: str) -> Musicnn:
    """One of `MODELS` on the CPU, in float32. Loaded once."""
    from safetensors.torch import load_file

    tensors = load_file(WEIGHTS / f"{name}.safetensors")
    network = Musicnn()
    network.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def score(
    audio: Float[np.ndarray, " N"], models: Sequence[str] = MODELS, every: Mapping[str, int] | None = None
) -> dict[str, TagScores]:
    """The answers of each model about one clip of 16 kHz mono audio.

    One patch at a time: a batch is slower on a CPU, whose cache its front-end's images do not fit.

    Args:
        audio: the clip.
        models: whom to ask.
        every: for a model, n to hear each n-th patch only, from the first on; 1 without it.
    """
    each = patches(log_mel(audio)).split(1)
    found = {}
    for name in models:
        network = load_musicnn(name)
        outputs = [network(patch) for patch in each[:: (every or {}).get(name, 1)]]
        logits, hidden, pooled = (
            torch.cat([getattr(output, part) for output in outputs]) for part in ("logits", "hidden", "pooled")
        )
        found[name] = TagScores(logits.sigmoid().mean(0).numpy(), hidden.mean(0).numpy(), pooled.mean(0).numpy())
    return found
