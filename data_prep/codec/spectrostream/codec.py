"""SpectroStream as Magenta RealTime 2 uses it: 48 kHz stereo in, 25 frames of 12 codes a second, and back.

Encoder and decoder never look ahead but for one spectrum (20 ms) and one frame (40 ms), so long clips pass through in
stretches, in memory of one size, with the result of the whole at once. Codes and audio equal the official code's on
the same weights up to fp32 rounding (magenta-rt 2.0.3).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec.port import Codec, StreamingDecoder
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.spectrostream import shape as sizes
from data_prep.codec.spectrostream.convolutions import Memory
from data_prep.codec.spectrostream.networks import Decoder, Encoder
from data_prep.codec.spectrostream.quantizer import Quantizer
from data_prep.codec.spectrostream.spectrum import Synthesis, spectra
from data_prep.fingerprint import fingerprint

STRETCH_FRAMES = 250
"""Encoded at once, 10 s: about 0.5 GB in the widest layers of the true model."""


def played(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a codec's tensors by plain name, those that tell what codes mean: all but the encoder's."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder/")}


class SpectroStreamSource(CodecSource):
    """A SpectroStream that has not been loaded. Its name is that of decoder and quantiser, with or without encoder."""

    def fingerprint(self) -> str:
        """A name for the weights, read for it alone."""
        return fingerprint(played(self.tensors()))


def load(source: CodecSource, device: str | torch.device = "cpu") -> "SpectroStreamCodec":
    """A codec of tensors by plain official name; `config` says how many codebooks are used (`n_codebooks`, 12).

    Without the encoder's tensors it decodes only.

    Raises:
        UserError: tensors are missing or do not fit together.
    """
    tensors = source.tensors()
    found, n_codebooks = played(tensors), int(source.config.get("n_codebooks", sizes.N_LM_CODEBOOKS))
    try:
        shape = sizes.shape_of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        with torch.device("meta"):
            network = SpectroStream(shape, encodes=len(found) < len(tensors))
        ours = {path: _ours(tensors, sizes.official_name(path)) for path in dict(network.named_parameters())}
        network.load_state_dict(ours, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            "This is no complete SpectroStream codec: its tensors do not fit together.",
            where=f"{source.where} ({str(error)[:300]})",
            fix="Fetch resources/spectrostream and the checkpoint again.",
        ) from error
    if shape.levels < n_codebooks:
        raise UserError(
            f"This codec has {shape.levels} codebooks, the language model uses {n_codebooks}.",
            where=str(source.where),
            fix="Use checkpoint and resources of one release.",
        )
    return SpectroStreamCodec(network.to(device), n_codebooks, fingerprint(found))


class SpectroStream(nn.Module):
    """The codec's networks, frozen, in float32."""

    def __init__(self, shape: sizes.CodecShape, *, encodes: bool) -> None:
        super().__init__()
        self.encoder = Encoder(shape) if encodes else None
        self.decoder = Decoder(shape)
        self.quantizer = Quantizer(shape.levels, shape.card, shape.features)
        self.requires_grad_(False)
        self.eval()


class SpectroStreamCodec(Codec):
    """The frozen codec of a base, in float32, on one device; the first `n_codebooks` levels of its quantiser."""

    def __init__(self, network: SpectroStream, n_codebooks: int, fingerprint: str) -> None:
        card = network.quantizer.embedding.shape[1]
        spec = CodecSpec(sizes.SAMPLE_RATE_HZ, sizes.HOP_SAMPLES, sizes.CHANNELS, n_codebooks, card)
        super().__init__(spec, fingerprint)
        self.network = network.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the codec runs."""
        return self.network.quantizer.embedding.device

    @property
    def can_stream(self) -> bool:
        """It decodes as it hears, one frame behind."""
        return True

    def to(self, device: str | torch.device) -> "SpectroStreamCodec":
        """Move the weights."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int[np.ndarray, "K _"]]:
        """Codes of each clip, T = ceil(N / 1920). Clips may differ in length.

        Raises:
            UserError: the base came without its encoder.
            ValueError: a clip is not stereo, or holds samples that are no numbers.
        """
        self._check_clips(clips)
        return [self._encode(clip) for clip in clips]

    def _encode(self, clip: Float[Tensor, "C N"]) -> Int[np.ndarray, "K T"]:
        encoder, quantizer = self.network.encoder, self.network.quantizer
        if encoder is None:
            raise UserError(
                "This base came without its codec's encoder: it can play, but not hear.",
                where="resources/spectrostream/encoder.safetensors",
                fix="Fetch it from the hub's folder, or with `mrt models init` of the official package.",
            )
        memory, codes, n_samples = Memory(), [], clip.shape[1]
        for start in range(0, n_samples, STRETCH_FRAMES * self.hop_samples):
            stop = min(start + STRETCH_FRAMES * self.hop_samples, n_samples)
            n_spectra = -(-(stop - start) // sizes.STEP_SAMPLES)
            heard = clip[None, :, start : stop + sizes.STEP_SAMPLES].to(self.device, torch.float32)
            features = encoder(spectra(heard, n_spectra), memory)
            codes.append(quantizer.encode(features, self.n_codebooks)[0])
        if not codes:
            return np.zeros((self.n_codebooks, 0), self.spec.code_dtype)
        return torch.cat(codes, dim=1).to("cpu").numpy().astype(self.spec.code_dtype)

    def decode_whole(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of checked codes on the codec's device. Behind the last frame the decoder hears nothing."""
        return SpectroStreamDecoder(self).heard(codes, last=True)

    def stream(self) -> "SpectroStreamDecoder":
        """A decoder for one piece that comes in stretches."""
        return SpectroStreamDecoder(self)


class SpectroStreamDecoder(StreamingDecoder):
    """Decodes one piece, pushed in stretches of any length, one frame behind; memory does not grow."""

    def __init__(self, codec: SpectroStreamCodec) -> None:
        self.codec = codec
        self._memory, self._synthesis = Memory(), Synthesis()
        self._to_drop = sizes.LOOKAHEAD_FRAMES * sizes.STEPS_PER_FRAME

    @property
    def latency_frames(self) -> int:
        """How many frames behind a sample must be known before it can be handed out."""
        return sizes.LOOKAHEAD_FRAMES

    @torch.inference_mode()
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Hear more frames, get the audio that has become certain (on the CPU); with `last`, all the rest."""
        return self.heard(torch.as_tensor(codes), last=last).to("cpu")

    def heard(self, codes: Int[Tensor, "K n"], *, last: bool) -> Float[Tensor, "C N"]:
        """The same on the codec's device."""
        network = self.codec.network
        features = network.quantizer.decode(codes.to(self.codec.device, torch.long)[None])
        if last:
            features = torch.cat([features, features.new_zeros(1, self.latency_frames, features.shape[2])], dim=1)
        if not features.shape[1]:
            return features.new_zeros(self.codec.channels, 0)
        found = network.decoder(features, self._memory)
        dropped = min(self._to_drop, found.shape[2])
        self._to_drop -= dropped
        if dropped == found.shape[2]:
            return features.new_zeros(self.codec.channels, 0)
        return self._synthesis.push(found[:, :, dropped:])[0]


def _ours(tensors: Mapping[str, Tensor], official: str) -> Tensor:
    """One tensor as torch holds it: [out, in, time, bins], for a transposed convolution [in, out, …] and reversed."""
    tensor = tensors[official].float()
    if tensor.ndim != 4:
        return tensor
    if "transpose" in official:
        return tensor.flip(0, 1).permute(2, 3, 0, 1).contiguous()
    return tensor.permute(3, 2, 0, 1).contiguous()
