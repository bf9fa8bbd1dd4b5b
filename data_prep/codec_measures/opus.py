"""Opus, the anchor row: what the codec of calls and videos keeps at a few kilobits per second (RFC 6716)."""

import io
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import Float

OPUS_RATE_HZ = 48_000


def opus_available() -> bool:
    """Whether this FFmpeg can encode Opus."""
    return "libopus" in av.codecs_available


def through_opus(audio: Float[np.ndarray, "C N"], bitrate_bps: int) -> tuple[Float[np.ndarray, "C N"], float]:
    """Audio at 48 kHz encoded, decoded and in its place again, and the bits per second that it took, without container.

    The bitrate is constant: the encoder may not save in quiet passages what it then spends elsewhere.
    """
    held = io.BytesIO()
    n_bytes = _encode(audio, bitrate_bps, held)
    held.seek(0)
    decoded = np.concatenate(list(_decode(held, audio.shape[0])), axis=1)
    n_samples = audio.shape[1]
    decoded = np.pad(decoded[:, :n_samples], ((0, 0), (0, max(0, n_samples - decoded.shape[1]))))
    return decoded, 8 * n_bytes * OPUS_RATE_HZ / n_samples


def _encode(audio: Float[np.ndarray, "C N"], bitrate_bps: int, held: io.BytesIO) -> int:
    """Write an Ogg file; returns the bytes of its packets."""
    layout = "mono" if audio.shape[0] == 1 else "stereo"
    n_bytes = 0
    with av.open(held, "w", format="ogg") as container:
        options = {"vbr": "off", "application": "audio"}
        stream = container.add_stream("libopus", rate=OPUS_RATE_HZ, layout=layout, options=options)
        stream.bit_rate = bitrate_bps
        samples = np.ascontiguousarray(audio.T, np.float32).reshape(1, -1)  # interleaved
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = OPUS_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            n_bytes += packet.size
            container.mux(packet)
    return n_bytes


def _decode(held: io.BytesIO, channels: int) -> Iterator[Float[np.ndarray, "C _"]]:
    with av.open(held, "r") as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            yield samples if frame.format.is_planar else samples.reshape(-1, channels).T
