"""musicnn's last hidden layers as an embedding: 200 numbers of either model, side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_prep.listeners.musicnn.log_mel import SAMPLE_RATE_HZ
from data_prep.listeners.musicnn.model import MODELS, score
from data_prep.listeners.musicnn.network import HIDDEN_WIDTH


class MusicnnEmbedder:
    """Needs no download; hears 16 kHz, so nothing above 8 kHz."""

    name = "musicnn"
    fingerprint = "musicnn-0.1.0 mtt+msd hidden 2"
    sample_rate_hz = SAMPLE_RATE_HZ
    width = len(MODELS) * HIDDEN_WIDTH

    def embed(self, audio: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "n D"]:
        """A row per clip."""
        return np.stack([self._one(clip) for clip in audio])

    def _one(self, clip: Float[np.ndarray, " N"]) -> Float[np.ndarray, " D"]:
        found = score(clip)
        return np.concatenate([found[name].hidden for name in MODELS]).astype(np.float32)
