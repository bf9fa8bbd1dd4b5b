"""SpectroStream as Magenta RealTime 2 uses it: 48 kHz stereo in, 25 frames of 12 codes a second, and back.

Encoder and decoder never look ahead but for one spectrum (20 ms) and one frame (40 ms), so long clips pass through in
stretches, in memory of one size, with the result of the whole at once. Codes and audio equal the official code's on
the same weights up to fp32 rounding (magenta-rt 2.0.3).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec_spectrostream import shape as sizes
from data_prep.codec_spectrostream.convolutions import Memory
from data_prep.codec_spectrostream.networks import Decoder, Encoder
from data_prep.codec_spectrostream.quantizer import Quantizer
from data_prep.codec_spectrostream.spectrum import Synthesis, spectra
from data_prep.fingerprint import fingerprint
from data_prep.magenta_rt2.files import MagentaFiles, read_codec_tensors

STRETCH_FRAMES = 250
"""10 s at a time: about 0.5 GB in the widest layers of the true model."""


class SpectroStreamCodec(nn.Module):
    """The frozen codec of a base, in float32, on one device.

    Attributes: `sample_rate_hz` 48,000; `hop_samples` 1920 per frame; `channels` 2; `n_codebooks` K that are used;
    `card` entries of each; `fingerprint` of the decoder and quantiser.
    """

    sample_rate_hz = sizes.SAMPLE_RATE_HZ
    hop_samples = sizes.HOP_SAMPLES
    channels = sizes.CHANNELS

    def __init__(self, shape: sizes.CodecShape, *, n_codebooks: int, fingerprint: str, encodes: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(shape) if encodes else None
        self.decoder = Decoder(shape)
        self.quantizer = Quantizer(shape.levels, shape.card, shape.features)
        self.n_codebooks, self.card, self.fingerprint = n_codebooks, shape.card, fingerprint
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, files: MagentaFiles, device: str | torch.device = "cpu") -> "SpectroStreamCodec":
        """Load only the codec of a base. Without resources/spectrostream/encoder.safetensors it decodes only.

        Raises:
            UserError: its tensors are missing, incomplete, or do not fit the language model.
        """
        tensors = read_codec_tensors(files)
        codec = cls.from_tensors(tensors, n_codebooks=files.spec.n_codebooks, where=str(files.folder))
        if codec.card != files.spec.card or len(codec.quantizer.embedding) < files.spec.n_codebooks:
            raise UserError(
                f"The codec of this base has {len(codec.quantizer.embedding)} levels of {codec.card} codes, its "
                f"language model {files.spec.n_codebooks} of {files.spec.card}.",
                where=str(files.folder),
                fix="Use checkpoint and resources of one release.",
            )
        return codec.to(device)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, n_codebooks: int, where: str = "") -> "SpectroStreamCodec":
        """A codec of these tensors, by plain official name.

        Raises:
            UserError: tensors are missing or do not fit together.
        """
        played = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder/")}
        encodes, name = len(played) < len(tensors), fingerprint(played)
        try:
            shape = sizes.shape_of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
            with torch.device("meta"):
                codec = cls(shape, n_codebooks=n_codebooks, fingerprint=name, encodes=encodes)
            ours = {path: _ours(tensors, sizes.official_name(path)) for path in dict(codec.named_parameters())}
            codec.load_state_dict(ours, assign=True)
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                "This is no complete SpectroStream codec: its tensors do not fit together.",
                where=f"{where} ({str(error)[:300]})",
                fix="Fetch resources/spectrostream and the checkpoint again.",
            ) from error
        return codec.requires_grad_(False)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def device(self) -> torch.device:
        """Where the codec runs."""
        return self.quantizer.embedding.device

    @torch.inference_mode()
    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int16[np.ndarray, "K _"]]:
        """Tokens of each clip, T = ceil(N / hop). Clips may differ in length.

        Raises:
            UserError: the base came without its encoder.
            ValueError: a clip is not stereo.
        """
        return [self._encode(clip) for clip in clips]

    def _encode(self, clip: Float[Tensor, "C N"]) -> Int16[np.ndarray, "K T"]:
        if self.encoder is None:
            raise UserError(
                "This base came without its codec's encoder: it can play, but not hear.",
                where="resources/spectrostream/encoder.safetensors",
                fix="Fetch it from the hub's folder, or with `mrt models init` of the official package.",
            )
        if clip.shape[0] != self.channels:
            raise ValueError(f"the base has {self.channels} channels, the clip {clip.shape[0]}")
        memory, codes, n_samples = Memory(), [], clip.shape[1]
        for start in range(0, n_samples, STRETCH_FRAMES * self.hop_samples):
            stop = min(start + STRETCH_FRAMES * self.hop_samples, n_samples)
            n_spectra = -(-(stop - start) // sizes.STEP_SAMPLES)
            heard = clip[None, :, start : stop + sizes.STEP_SAMPLES].to(self.device, torch.float32)
            features = self.encoder(spectra(heard, n_spectra), memory)
            codes.append(self.quantizer.encode(features, self.n_codebooks)[0])
        if not codes:
            return np.zeros((self.n_codebooks, 0), np.int16)
        return torch.cat(codes, dim=1).to("cpu", torch.int16).numpy()

    def decode(self, codes: Int16[np.ndarray, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of the tokens, N = T * hop, on the CPU. Behind the last frame the decoder hears nothing.

        Raises:
            ValueError: a token is no codebook entry.
        """
        stream, parts = SpectroStreamDecoder(self), []
        for start in range(0, max(codes.shape[1], 1), STRETCH_FRAMES):
            stretch = codes[:, start : start + STRETCH_FRAMES]
            parts.append(stream.push(stretch, last=start + STRETCH_FRAMES >= codes.shape[1]))
        return torch.cat(parts, dim=1)


class SpectroStreamDecoder:
    """Decodes one piece, pushed in stretches of any length, one frame behind; memory does not grow."""

    latency_frames = sizes.LOOKAHEAD_FRAMES
    """How many frames behind a sample must be known before it can be handed out."""

    def __init__(self, codec: SpectroStreamCodec) -> None:
        self.codec = codec
        self._memory, self._synthesis = Memory(), Synthesis()
        self._to_drop = sizes.LOOKAHEAD_FRAMES * sizes.STEPS_PER_FRAME

    @torch.inference_mode()
    def push(
        self, codes: Int16[np.ndarray, "K n"] | Int16[Tensor, "K n"], *, last: bool = False
    ) -> Float[Tensor, "C N"]:
        """Hear more frames, get the audio that has become certain (on the CPU); with `last`, all the rest.

        Raises:
            ValueError: a token is no codebook entry.
        """
        codec = self.codec
        ids = torch.as_tensor(codes).to(codec.device, torch.long)[None]
        if ids.numel() and not (ids.min() >= 0 and ids.max() < codec.card):
            raise ValueError(f"tokens must lie in 0 … {codec.card - 1}, got {int(ids.min())} … {int(ids.max())}")
        features = codec.quantizer.decode(ids)
        if last:
            features = torch.cat([features, features.new_zeros(1, self.latency_frames, features.shape[2])], dim=1)
        if not features.shape[1]:
            return torch.zeros(codec.channels, 0)
        heard = codec.decoder(features, self._memory)
        dropped = min(self._to_drop, heard.shape[2])
        self._to_drop -= dropped
        if dropped == heard.shape[2]:
            return torch.zeros(codec.channels, 0)
        return self._synthesis.push(heard[:, :, dropped:])[0].to("cpu")


def _ours(tensors: Mapping[str, Tensor], official: str) -> Tensor:
    """One tensor as torch holds it: [out, in, time, bins], for a transposed convolution [in, out, …] and reversed."""
    tensor = tensors[official].float()
    if tensor.ndim != 4:
        return tensor
    if "transpose" in official:
        return tensor.flip(0, 1).permute(2, 3, 0, 1).contiguous()
    return tensor.permute(3, 2, 0, 1).contiguous()
