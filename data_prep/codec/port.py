"""What the project needs of a codec: audio in, codes out, and back, whole or while it is being played.

A codec is a subclass of `Codec` in a file of its own; `registry.py` knows which file. Everybody else sees only this.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec.spec import CodecSpec

WHOLE_SEC = 40.0
"""Codes of at most this length are decoded in one piece, longer ones in stretches: memory stays that of the stretch.

EnCodec at 32 kHz takes 28 MB per second decoded whole; 40 s are longer than any clip or window of the models we know.
"""
STRETCH_SEC = 10.0


class StreamingDecoder(ABC):
    """Decodes one piece, pushed in stretches of any length. What it hands out, joined, is one decode of the whole."""

    @property
    @abstractmethod
    def latency_frames(self) -> int:
        """How many frames behind a sample must be known before it can be handed out."""

    @abstractmethod
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Take more frames, give the audio that has become certain (on the CPU); with `last`, all the rest."""


class Codec(ABC):
    """A frozen codec on one device. A subclass gives `device`, `encode`, `decode_whole` and, where known, its reach."""

    def __init__(self, spec: CodecSpec, fingerprint: str) -> None:
        self.spec = spec
        self.fingerprint = fingerprint

    @property
    def sample_rate_hz(self) -> int:
        """Of the audio that is read and written."""
        return self.spec.sample_rate_hz

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return self.spec.hop_samples

    @property
    def channels(self) -> int:
        """Of the audio: 1 or 2."""
        return self.spec.channels

    @property
    def n_codebooks(self) -> int:
        """K, over all channels."""
        return self.spec.n_codebooks

    @property
    def card(self) -> int:
        """Codebook size."""
        return self.spec.card

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.spec.frame_rate

    @property
    def codebook_counts(self) -> tuple[int, ...]:
        """How many leading codebooks can be decoded alone, ascending; the last is K. All counts, unless said."""
        return tuple(range(1, self.n_codebooks + 1))

    def bitrate_bps(self, n_codebooks: int | None = None) -> float:
        """Bits per second of the first codebooks (all, unless said), stored without entropy coding."""
        count = self.n_codebooks if n_codebooks is None else n_codebooks
        return self.spec.bitrate_bps * count / self.n_codebooks

    @property
    def context_frames(self) -> int | None:
        """How many frames to either side decide a sample; None where the whole piece does, or nobody knows."""
        return None

    @property
    def can_stream(self) -> bool:
        """Whether `stream` gives what `decode` gives. Codecs that see the whole piece at once cannot."""
        return self.context_frames is not None

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the codec runs."""

    @abstractmethod
    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int[np.ndarray, "K _"]]:
        """Codes of each clip, T = ceil(N / hop_samples), in `spec.code_dtype`.

        The codes of a clip do not depend on the others: no clip is padded to the length of another.

        Raises:
            ValueError: a clip has another number of channels, or samples that are no numbers.
        """

    @abstractmethod
    def decode_whole(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of checked codes on the codec's device, N = T * hop_samples, in one piece. Callers want `decode`."""

    def to(self, device: str | torch.device) -> "Codec":
        """Move the weights. A codec without weights stays where it is."""
        return self

    def decode(self, codes: Int[np.ndarray, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of the codes, N = T * hop_samples, on the CPU. The first K' codebooks alone are allowed too.

        Long pieces are decoded in stretches. A piece that the GPU's memory does not hold is decoded on the CPU.

        Raises:
            ValueError: a code is no codebook entry (the special token is not audio), or so many codebooks say nothing.
        """
        self._check_codes(codes)
        tokens = torch.from_numpy(codes.astype(np.int64))
        with torch.inference_mode():
            try:
                return self._decode_bounded(tokens)
            except torch.OutOfMemoryError:
                if self.device.type == "cpu":
                    raise
            return self._decode_on_cpu(tokens)

    def stream(self) -> StreamingDecoder:
        """A decoder for one piece that comes in stretches.

        Raises:
            UserError: the codec decodes whole pieces only.
        """
        if not self.can_stream:
            raise UserError(
                "This base's codec decodes whole pieces only: its music cannot be played while it is made.",
                fix="Use `woodshed sample --out FOLDER` instead of playing live.",
            )
        from data_prep.codec.stretches import ContextDecoder

        return ContextDecoder(self)

    def _decode_bounded(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        stretch = max(1, self.spec.frames_in(STRETCH_SEC))
        if codes.shape[1] <= self.spec.frames_in(WHOLE_SEC):
            return self.decode_whole(codes.to(self.device)).to("cpu")
        return torch.cat(list(self._decode_in_stretches(codes, stretch)), dim=1)

    def _decode_in_stretches(self, codes: Int[Tensor, "K T"], stretch: int) -> Iterator[Float[Tensor, "C _"]]:
        from data_prep.codec.stretches import ContextDecoder

        decoder = self.stream() if self.can_stream else ContextDecoder(self)
        for start in range(0, codes.shape[1], stretch):
            yield decoder.push(codes[:, start : start + stretch], last=start + stretch >= codes.shape[1])

    def _decode_on_cpu(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        before = self.device
        self.to("cpu")
        try:
            return self._decode_bounded(codes)
        finally:
            try:
                self.to(before)
            except torch.OutOfMemoryError:  # what was decoded counts more; the codec stays where it is
                self.to("cpu")

    def _check_codes(self, codes: Int[np.ndarray, "K T"]) -> None:
        if codes.size and not (codes.min() >= 0 and codes.max() < self.card):
            raise ValueError(f"tokens must lie in 0 … {self.card - 1}, got {codes.min()} … {codes.max()}")
        if codes.shape[0] not in self.codebook_counts:
            raise ValueError(f"{codes.shape[0]} codebooks cannot be decoded; {self.codebook_counts} can")

    def _check_clips(self, clips: Sequence[Float[Tensor, "C _"]]) -> None:
        for clip in clips:
            if clip.shape[0] != self.channels:
                raise ValueError(f"the codec has {self.channels} channels, the clip {clip.shape[0]}")
            if not torch.isfinite(clip).all():
                raise ValueError("the clip holds samples that are no numbers")
