"""Random crops of pieces in memory, whole batches at once; batch n of a seed is always the same."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class Crops:
    """All audio as one int16 tensor, on the device that trains: 115 MB for an hour at 16 kHz."""

    def __init__(
        self, pieces: Sequence[Int[np.ndarray, " _"]], n_samples: int, batch_size: int, device: torch.device
    ) -> None:
        self.n_samples, self.batch_size = n_samples, batch_size
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
