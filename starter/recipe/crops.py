"""Random crops of rendered pieces, whole batches at once; batch n of a seed is always the same."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from starter.recipe.collection import Collection


class Crops:
    """All audio of a collection as one int16 tensor, on the device that trains."""

    def __init__(self, folder: Path, crop_sec: float, batch_size: int, device: torch.device) -> None:
        collection = Collection(folder)
        self.sample_rate_hz = collection.sample_rate_hz
        self.n_samples = round(crop_sec * collection.sample_rate_hz)
        self.batch_size = batch_size
        pieces = [collection.audio(index) for index in range(len(collection))]
        lengths = torch.tensor([len(piece) for piece in pieces])
        self.ends = lengths.cumsum(0)
        self.starts = self.ends - lengths
        self.audio: Int[Tensor, " M"] = torch.from_numpy(np.concatenate(pieces)).to(device)

    def batch(self, step: int, seed: int = 0, n: int | None = None) -> Float[Tensor, "B 1 N"]:
        """The batch of a step, in -1 … 1."""
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        n = n or self.batch_size
        piece = torch.randint(len(self.starts), (n,), generator=generator)
        room = self.ends[piece] - self.starts[piece] - self.n_samples
        first = self.starts[piece] + (torch.rand(n, generator=generator) * room).long()  # [B]
        places = first[:, None] + torch.arange(self.n_samples)  # [B, N]
        return self.audio[places.to(self.audio.device)][:, None].float() / 32768
