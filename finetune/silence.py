"""How much of a piece is silent: an adapter may learn to play nothing, and its loss does not say so."""

from jaxtyping import Float
from torch import Tensor

WINDOW_SEC = 0.1
SILENT_DB = -60.0
"""RMS over a window, all channels together, relative to full scale."""
MUCH = 0.5
"""Share of a piece from which on it is worth a word."""


def silent_share(waveform: Float[Tensor, "C N"], sample_rate_hz: int) -> float:
    """Share of the windows that are silent, 0 to 1; what is shorter than a window at the end does not count."""
    window = max(1, round(WINDOW_SEC * sample_rate_hz))
    n_windows = max(1, waveform.shape[1] // window)
    power = waveform.float().square().mean(0)[: n_windows * window].view(n_windows, -1).mean(1)
    return float((power < 10 ** (SILENT_DB / 10)).float().mean())
