"""What all codecs from transformers share: strict loading, batches of equal length, stereo by channel where mono.

Stereo through a mono codec: left and right are encoded alone and their codebooks interleaved (left 0, 2, 4, 6; right
1, 3, 5, 7), as transformers' stereo MusicGen does it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.port import Codec
from data_prep.codec.source import CodecSource, weights_fingerprint
from data_prep.codec.spec import CodecSpec
from data_prep.codec.stretches import UNKNOWN_REACH_SEC, encode_in_stretches


class TransformersCodec(Codec):
    """A model of transformers behind the port, in float32. A subclass says how one stream of codes is made and read.

    `spec` counts all channels. `streams` is how many times the model runs per clip: the channels, where it is mono.
    """

    def __init__(self, model: Any, spec: CodecSpec, fingerprint: str, *, streams: int) -> None:
        super().__init__(spec, fingerprint)
        self.model = model
        self.streams = streams

    @property
    def codebook_counts(self) -> tuple[int, ...]:
        """Whole levels: one codebook of every stream."""
        return tuple(range(self.streams, self.n_codebooks + 1, self.streams))

    @property
    def device(self) -> torch.device:
        """Where the codec runs."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "TransformersCodec":
        """Move the weights."""
        _moved(self.model, device)
        return self

    @abstractmethod
    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length, T = ceil(N / hop); c and k are those of one stream."""

    @abstractmethod
    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes, N = T * hop_samples."""

    @property
    def encode_context_frames(self) -> int | None:
        """How many frames to either side decide a frame's codes; None where the whole clip does."""
        return None

    @torch.inference_mode()
    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int[np.ndarray, "K _"]]:
        """Codes of each clip, T = ceil(N / hop_samples). All clips of one length make one batch.

        Raises:
            ValueError: a clip has another number of channels, or samples that are no numbers.
        """
        self._check_clips(clips)
        batches: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            batches.setdefault(clip.shape[1], []).append(index)
        codes: dict[int, np.ndarray] = {}
        for indices in batches.values():
            batch = self._encode_clips(torch.stack([clips[i] for i in indices]))
            codes.update(zip(indices, batch, strict=True))
        return [codes[index] for index in range(len(clips))]

    def _encode_clips(self, audio: Float[Tensor, "B C N"]) -> Int[np.ndarray, "B K T"]:
        B, C, N = audio.shape
        streams = audio.float().reshape(B * self.streams, C // self.streams, N)
        found = self._encode_bounded(streams)  # [B * streams, k, T]
        per_stream = found.reshape(B, self.streams, *found.shape[1:])
        codes = per_stream.transpose(1, 2).flatten(1, 2)  # [B, K, T]
        return codes.to("cpu").numpy().astype(self.spec.code_dtype)

    def _encode_bounded(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        if audio.shape[2] <= port.WHOLE_SEC * self.sample_rate_hz:
            return self.encode_batch(audio.to(self.device))
        return self.encode_long(audio)

    def encode_long(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of a piece that is too long for one go: memory is that of a stretch. `audio` may be on the CPU.

        Equal to one go where `encode_context_frames` is known; nearly, with some seconds of context, where it is not.
        """
        known = self.encode_context_frames
        return encode_in_stretches(
            lambda part: self.encode_batch(part.to(self.device)).to("cpu"),
            audio,
            self.hop_samples,
            stretch_frames=max(1, self.spec.frames_in(port.STRETCH_SEC)),
            context_frames=self.spec.frames_in(UNKNOWN_REACH_SEC) if known is None else known,
        )

    def decode_whole(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of checked codes on the codec's device, in one piece."""
        per_stream = codes.reshape(-1, self.streams, codes.shape[1]).transpose(0, 1)  # [streams, k, T]
        return self.decode_batch(per_stream).flatten(0, 1)  # [C, N]


def load_model(model_class: Any, config: Any, source: CodecSource, device: str | torch.device) -> tuple[Any, str]:
    """A frozen model in float32 from a source's tensors, and the fingerprint of its weights.

    Raises:
        UserError: weights are missing, or have another shape than the configuration says.
    """
    tensors = source.tensors()
    name = weights_fingerprint(tensors)
    loaded: Any = model_class.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    model, report = loaded
    if report["missing_keys"] or report["mismatched_keys"]:
        raise UserError(
            "The base's codec is incomplete.",
            where=f"{source.where}: missing {sorted(report['missing_keys'])[:3]} …",
            fix="Fetch the base again, or copy the folder again.",
        )
    return _moved(model.eval().requires_grad_(False), device), name


def _moved(model: Any, device: str | torch.device) -> Any:
    """The model on a device, its single integers on the host.

    EnCodec holds the sizes of its convolutions as buffers and reads them to know how far to pad: on a GPU the host
    would wait for the device before every convolution.
    """
    sizes = [
        (module, name, buffer.to("cpu"))
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.ndim == 0 and not buffer.is_floating_point()
    ]
    model.to(device)
    for module, name, buffer in sizes:
        module._buffers[name] = buffer
    return model


def to_whole_frames(audio: Float[Tensor, "B c N"], hop_samples: int) -> Float[Tensor, "B c M"]:
    """The audio with silence behind it up to the end of its last frame."""
    return torch.nn.functional.pad(audio, (0, -audio.shape[2] % hop_samples))


def to_length(audio: Float[Tensor, "B c N"], n_samples: int) -> Float[Tensor, "B c M"]:
    """Cut, or with silence behind it: decoders with odd strides give a few samples less than their frames hold."""
    return torch.nn.functional.pad(audio[:, :, :n_samples], (0, max(0, n_samples - audio.shape[2])))


def streams_of(source: CodecSource, own_channels: int) -> int:
    """How often a codec runs per clip: once for its own channels, once per channel where it is mono.

    Raises:
        UserError: a stereo codec is to read mono audio.
    """
    wanted = source.channels or own_channels
    if wanted % own_channels:
        raise UserError(
            f"The codec reads {own_channels} channels, the audio has {wanted}.",
            where=str(source.where),
            fix="Use a codec and a base whose channels agree.",
        )
    return wanted // own_channels
