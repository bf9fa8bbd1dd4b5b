"""Keys and values of the last frames: memory of one size, however long the piece becomes.

There are no positions in this model, so the order of what is kept does not matter: a new frame takes the place of the
oldest. Slot 0 holds the sink, which every frame attends to.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Heard = tuple[Float[Tensor, "B H S d"], Float[Tensor, "B H S d"], Bool[Tensor, "n S"] | None]
"""Keys, values, and which of them each of the n new frames may see (None: all)."""


def window_mask(
    n_new: int, n_past: int, window_frames: int, *, sink: bool, device: torch.device | str = "cpu"
) -> Bool[Tensor, "n S"]:
    """Which of (sink,) past and new frames each new frame sees: itself and `window_frames` before it."""
    query = torch.arange(n_new, device=device)[:, None] + n_past
    key = torch.arange(n_past + n_new, device=device)[None]
    seen = (key <= query) & (key >= query - window_frames)
    return torch.cat([seen.new_ones(n_new, 1), seen], dim=1) if sink else seen


class Ring:
    """The window of one attention layer: a sink and at most `window_frames` + 1 frames."""

    def __init__(
        self,
        window_frames: int,
        sink_key: Float[Tensor, "B H 1 d"],
        sink_value: Float[Tensor, "B H 1 d"],
    ) -> None:
        self.window_frames = window_frames
        self.size = window_frames + 1
        self.keys, self.values = sink_key, sink_value  # grown to their full size, once, by the first frame
        self.n_seen = 0

    def push(self, keys: Float[Tensor, "B H n d"], values: Float[Tensor, "B H n d"]) -> Heard:
        """Take in new frames; get what they attend to."""
        if not self.n_seen:
            self.keys, self.values = self._grown(self.keys, keys), self._grown(self.values, values)
        if keys.shape[2] > 1:
            return self._push_many(keys, values)
        slot = 1 + self.n_seen % self.size
        self.keys[:, :, slot : slot + 1], self.values[:, :, slot : slot + 1] = keys, values
        self.n_seen += 1
        filled = 1 + min(self.n_seen, self.size)
        return self.keys[:, :, :filled], self.values[:, :, :filled], None

    def keep(self, index: Int[Tensor, " n"]) -> None:
        """Go on with these rows only."""
        self.keys, self.values = self.keys.index_select(0, index), self.values.index_select(0, index)

    def _push_many(self, keys: Float[Tensor, "B H n d"], values: Float[Tensor, "B H n d"]) -> Heard:
        n_new, n_past = keys.shape[2], min(self.n_seen, self.window_frames)
        past = torch.arange(self.n_seen - n_past, self.n_seen, device=keys.device) % self.size + 1
        kept = torch.cat([past.new_zeros(1), past])  # the sink, then the past in order
        all_keys = torch.cat([self.keys[:, :, kept], keys], dim=2)
        all_values = torch.cat([self.values[:, :, kept], values], dim=2)
        self.n_seen += n_new
        n_last = min(n_new, self.size)
        slots = torch.arange(self.n_seen - n_last, self.n_seen, device=keys.device) % self.size + 1
        self.keys[:, :, slots], self.values[:, :, slots] = keys[:, :, -n_last:], values[:, :, -n_last:]
        return all_keys, all_values, window_mask(n_new, n_past, self.window_frames, sink=True, device=keys.device)

    def _grown(self, sink: Float[Tensor, "B H 1 d"], like: Float[Tensor, "B H n d"]) -> Float[Tensor, "B H S d"]:
        """The sink and room for the window, in the precision that the layer computes in."""
        B, H, _, d = like.shape
        whole = like.new_zeros(B, H, 1 + self.size, d)
        whole[:, :, :1] = sink
        return whole
