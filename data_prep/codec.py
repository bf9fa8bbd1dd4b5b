"""EnCodec as MusicGen uses it: audio in, token frames out, and back.

The codec is not causal and pads by reflection at both ends, so a clip's last frames depend on where it ends: clips are
batched only with clips of the same length and never padded. Stereo is two mono signals encoded alone and interleaved
(left 0, 2, 4, 6; right 1, 3, 5, 7), as transformers' stereo MusicGen does it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from configs.errors import UserError
from data_prep.base_files import BaseFiles, load_tensors
from data_prep.fingerprint import fingerprint


class Codec:
    """The frozen codec of a base, in float32, on one device.

    Attributes: `sample_rate_hz`; `hop_samples` per frame; `channels` of the audio (1 or 2); `n_codebooks` K over all
    channels; `card`; `fingerprint` of its weights.
    """

    def __init__(self, model: Any, *, channels: int, fingerprint: str) -> None:
        self.model = model
        self.sample_rate_hz: int = model.config.sampling_rate
        self.hop_samples: int = model.config.hop_length
        self.channels = channels
        self.n_codebooks: int = model.config.num_quantizers * channels
        self.card: int = model.config.codebook_size
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, files: BaseFiles, device: str | torch.device = "cpu") -> "Codec":
        """Load only the codec's weights of a base.

        Raises:
            UserError: the codec does not fit the LM of the same base, or its weights are incomplete.
        """
        from transformers import EncodecConfig, EncodecModel

        tensors = load_tensors(files, "audio_encoder")
        name = _fingerprint(tensors)
        config: Any = EncodecConfig(**files.config["audio_encoder"])
        loaded: Any = EncodecModel.from_pretrained(
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
                where=f"{files.folder}: missing {sorted(report['missing_keys'])[:3]} …",
                fix="Fetch the base again, or copy the folder again.",
            )
        codec = cls(model.to(device).eval().requires_grad_(False), channels=files.spec.channels, fingerprint=name)
        codec._check(files)
        return codec

    def _check(self, files: BaseFiles) -> None:
        config = self.model.config
        got = {"codebooks": self.n_codebooks, "codebook size": self.card}
        want = {"codebooks": files.spec.n_codebooks, "codebook size": files.spec.card}
        if got != want or config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
            raise UserError(
                f"The codec of this base does not fit its language model: codec {got}, language model {want}; a codec "
                f"must be mono ({config.audio_channels} channels here), not normalising, and not cut into chunks.",
                where=str(files.folder),
                fix="Use a base whose files belong together, e.g. facebook/musicgen-small.",
            )

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def device(self) -> torch.device:
        """Where the codec runs."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int16[np.ndarray, "K _"]]:
        """Tokens of each clip, T = ceil(N / hop). All clips of one length make one batch.

        Raises:
            ValueError: a clip has another number of channels than the base.
        """
        for clip in clips:
            if clip.shape[0] != self.channels:
                raise ValueError(f"the base has {self.channels} channels, the clip {clip.shape[0]}")
        batches: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            batches.setdefault(clip.shape[1], []).append(index)
        codes: dict[int, np.ndarray] = {}
        for indices in batches.values():
            batch = self._encode_batch(torch.stack([clips[i] for i in indices]))
            codes.update(zip(indices, batch, strict=True))
        return [codes[index] for index in range(len(clips))]

    def _encode_batch(self, audio: Float[Tensor, "B C N"]) -> Int16[np.ndarray, "B K T"]:
        B, C, N = audio.shape
        mono = audio.to(self.device, torch.float32).reshape(B * C, 1, N)  # [B*C, 1, N]
        found = self.model.encode(mono).audio_codes[0]  # [B*C, K/C, T]
        per_channel = found.reshape(B, C, *found.shape[1:])  # [B, C, K/C, T]
        codes = per_channel.transpose(1, 2).flatten(1, 2)  # [B, K, T]
        return codes.to("cpu", torch.int16).numpy()

    @torch.inference_mode()
    def decode(self, codes: Int16[np.ndarray, "K T"]) -> Float[Tensor, "C N"]:
        """Audio of the tokens, N = T * hop, on the CPU.

        Raises:
            ValueError: a token is no codebook entry (the special token is not audio).
        """
        if codes.size and not (codes.min() >= 0 and codes.max() < self.card):
            raise ValueError(f"tokens must lie in 0 … {self.card - 1}, got {codes.min()} … {codes.max()}")
        per_channel = torch.from_numpy(codes.astype(np.int64)).to(self.device)
        per_channel = per_channel.reshape(-1, self.channels, codes.shape[1]).transpose(0, 1)  # [C, K/C, T]
        audio = self.model.decode(per_channel[None], [None]).audio_values  # [C, 1, N]
        return audio[:, 0].to("cpu")


def codec_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's codec, without loading it as a model."""
    return _fingerprint(load_tensors(files, "audio_encoder"))


def _fingerprint(tensors: dict[str, Tensor]) -> str:
    """The same for both names that weight norm has in checkpoints."""
    return fingerprint({_plain_name(key): tensor for key, tensor in tensors.items()})


def _plain_name(key: str) -> str:
    plain = key.replace(".parametrizations.weight.original0", ".weight_g")
    return plain.replace(".parametrizations.weight.original1", ".weight_v")
