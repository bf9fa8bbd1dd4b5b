"""A recording as a picture: its waveform above its mel spectrogram, as a data URI."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data_prep.report import data_uri

BANDS, WINDOW_SEC, HOP_SEC = 96, 0.064, 0.016
RANGE_DB = 75.0
"""What is this far below the loudest place is black; the same for every picture, so that pictures compare."""
REFERENCE_DB = 40.0


def picture(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> str:
    """One PNG without axes: they would say the same on every picture of a page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 1.7), dpi=100)
    wave, mel = figure.subplots(2, 1, height_ratios=(1, 2.6))
    figure.subplots_adjust(0, 0, 1, 1, hspace=0.03)
    low, high = envelope(audio.mean(axis=0))
    wave.fill_between(np.arange(len(low)), low, high, color="#b5622e", linewidth=0)
    wave.set(xlim=(0, len(low) - 1), ylim=(-1, 1))
    mel.imshow(
        mel_db(audio.mean(axis=0), sample_rate_hz),
        origin="lower", aspect="auto", cmap="magma", vmin=REFERENCE_DB - RANGE_DB, vmax=REFERENCE_DB,
    )  # fmt: skip
    for axes in (wave, mel):
        axes.set_axis_off()
    held = io.BytesIO()
    figure.savefig(held, format="png")
    return data_uri("image/png", _smaller(held.getvalue()))


def mel_db(audio: Float[np.ndarray, " N"], sample_rate_hz: int) -> Float[np.ndarray, "bands T"]:
    """Mel magnitudes in dB, never below the range that a picture shows."""
    mel = _mel(sample_rate_hz)(torch.from_numpy(np.ascontiguousarray(audio, np.float32)))
    return (20 * torch.log10(mel + 1e-6)).clamp(min=REFERENCE_DB - RANGE_DB).numpy()


def envelope(audio: Float[np.ndarray, " N"], points: int = 520) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample in each of `points` equal stretches."""
    edges = np.linspace(0, len(audio), points + 1).astype(int)[:-1]
    edges = np.minimum(edges, max(0, len(audio) - 1))
    return np.minimum.reduceat(audio, edges), np.maximum.reduceat(audio, edges)


@lru_cache(maxsize=4)
def _mel(sample_rate_hz: int) -> Any:
    import torchaudio

    window = 1 << round(np.log2(WINDOW_SEC * sample_rate_hz))
    return torchaudio.transforms.MelSpectrogram(
        sample_rate_hz, n_fft=window, hop_length=round(HOP_SEC * sample_rate_hz), n_mels=BANDS, power=1.0
    )


def _smaller(png: bytes) -> bytes:
    """The same picture with 64 colours: a third of the size."""
    from PIL import Image

    held = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(held, format="png", optimize=True)
    return held.getvalue()
