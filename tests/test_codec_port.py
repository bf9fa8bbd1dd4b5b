"""The codec port: its numbers, a codec that nobody knows, long pieces in stretches, and streams of any codec."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.codec import port, registry
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec, load_codec
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.stretches import ContextDecoder


class Neighbours(Codec):
    """A toy at 25 Hz with 3 codebooks: each sample is the mean of its frame and the frames `reach` before and after."""

    def __init__(self, reach: int = 2, known: bool = True) -> None:
        super().__init__(CodecSpec(8_000, 320, 1, 3, 16), "toy")
        self.reach, self.known = reach, known
        self.longest = 0

    @property
    def context_frames(self) -> int | None:
        return self.reach if self.known else None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode(self, clips: Sequence[Float[Tensor, "C _"]]) -> list[Int[np.ndarray, "K _"]]:
        self._check_clips(clips)
        return [np.zeros((3, self.spec.frames_of(clip.shape[1])), np.int16) for clip in clips]

    def decode_whole(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
        self.longest = max(self.longest, codes.shape[1])
        frames = torch.nn.functional.pad(codes.sum(dim=0).float(), (self.reach, self.reach))
        mean = (frames[: -2 * self.reach] + frames[self.reach : -self.reach] + frames[2 * self.reach :]) / 3
        return mean.repeat_interleave(320)[None]


def some_codes(codec: Codec, n_frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, codec.card, (codec.n_codebooks, n_frames)).astype(np.int16)


def test_the_field_s_own_numbers() -> None:
    """DAC at 44.1 kHz: 7.75 kbps, 91 times smaller (Kumar et al. 2023); EnCodec in MusicGen: 2.2 kbps."""
    dac = CodecSpec(44_100, 512, 1, 9, 1024)
    assert dac.frame_rate == 44_100 / 512 and not float(dac.frame_rate).is_integer()
    assert dac.bitrate_bps == pytest.approx(7751.95, abs=0.01) and round(dac.compression) == 91
    musicgen = CodecSpec(32_000, 640, 1, 4, 2048)
    assert musicgen.bitrate_bps == pytest.approx(2200) and musicgen.frame_rate == 50
    assert CodecSpec(24_000, 320, 1, 32, 1024).bitrate_bps == pytest.approx(24_000)
    fsq = CodecSpec(16_000, 320, 1, 1, 4**8)
    assert fsq.bitrate_bps == pytest.approx(800) and fsq.code_dtype == "int32" and musicgen.code_dtype == "int16"
    assert dac.frames_of(0) == 0 and dac.frames_of(1) == 1 and dac.frames_of(513) == 2
    assert dac.frames_in(10.0) == round(10 * 44_100 / 512) and math.isclose(dac.bits_per_code, 10)


@pytest.mark.parametrize("wrong", [(0, 1, 1, 1, 2), (1, 1, 3, 1, 2), (1, 1, 1, 0, 2), (1, 1, 1, 1, 1)])
def test_numbers_that_no_codec_has(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        CodecSpec(*wrong)


@pytest.mark.parametrize("stretch", [1, 3, 10, 40])
def test_any_codec_with_a_known_reach_streams(stretch: int) -> None:
    codec = Neighbours()
    codes = some_codes(codec, 37)
    decoder = codec.stream()
    parts = [decoder.push(codes[:, at : at + stretch], last=at + stretch >= 37) for at in range(0, 37, stretch)]
    torch.testing.assert_close(torch.cat(parts, dim=1), codec.decode(codes), rtol=0, atol=0)
    assert decoder.latency_frames == 2


def test_too_little_context_is_heard() -> None:
    codec = Neighbours()
    codes = some_codes(codec, 30)
    decoder = ContextDecoder(codec)
    decoder.reach = 1
    parts = [decoder.push(codes[:, at : at + 10], last=at == 20) for at in (0, 10, 20)]
    assert (torch.cat(parts, dim=1) - codec.decode(codes)).abs().max() > 0.1


def test_a_codec_that_sees_the_whole_piece_says_that_it_cannot_stream() -> None:
    codec = Neighbours(known=False)
    assert not codec.can_stream
    with pytest.raises(UserError, match="whole pieces only"):
        codec.stream()


@pytest.mark.parametrize("known", [True, False])
def test_long_pieces_are_decoded_in_stretches(known: bool) -> None:
    codec = Neighbours(known=known)
    codes = some_codes(codec, 3 * round(port.WHOLE_SEC * 25))
    assert torch.equal(codec.decode(codes), codec.decode_whole(torch.from_numpy(codes)))
    codec.longest = 0
    codec.decode(codes)
    assert codec.longest < 25 * 25, "memory follows the stretch, not the piece"


def test_no_gpu_memory_left_is_no_reason_to_lose_the_tokens() -> None:
    class Full(Neighbours):
        def __init__(self) -> None:
            super().__init__()
            self.at, self.moves = torch.device("cuda"), []

        @property
        def device(self) -> torch.device:
            return self.at

        def to(self, device: str | torch.device) -> Codec:
            self.at = torch.device(device)
            self.moves.append(self.at.type)
            return self

        def _decode_bounded(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "C N"]:
            if self.at.type == "cuda":
                raise torch.OutOfMemoryError("full")
            return super()._decode_bounded(codes)

    codec = Full()
    codes = some_codes(codec, 20)
    assert torch.equal(codec.decode(codes), Neighbours().decode(codes))
    assert codec.moves == ["cpu", "cuda"], "the codec goes back to where it was"


def test_wrong_codes_and_clips_are_refused() -> None:
    codec = Neighbours()
    with pytest.raises(ValueError, match="tokens must lie"):
        codec.decode(np.full((3, 2), 16, np.int16))
    with pytest.raises(ValueError, match="codebooks cannot be decoded"):
        codec.decode(np.zeros((4, 2), np.int16))
    with pytest.raises(ValueError, match="channels"):
        codec.encode([torch.zeros(2, 320)])
    with pytest.raises(ValueError, match="no numbers"):
        codec.encode([torch.full((1, 320), torch.nan)])


def test_a_kind_is_registered_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "KINDS", dict(registry.KINDS))
    source = CodecSource("neighbours", {}, dict, tmp_path)
    with pytest.raises(UserError, match="no codec of the kind `neighbours`"):
        load_codec(source)
    registry.register("neighbours", lambda source, device: Neighbours())
    assert load_codec(source).fingerprint == "toy"
    with pytest.raises(ValueError, match="already"):
        registry.register("neighbours", lambda source, device: Neighbours())


@pytest.mark.parametrize("base", ["mono_base", "stereo_base"])
def test_musicgen_s_codec_decodes_long_pieces_in_stretches(
    base: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = load_base_codec(resolve_base(str(request.getfixturevalue(base))))
    codes = some_codes(codec, 130)
    whole = codec.decode(codes)
    monkeypatch.setattr(port, "WHOLE_SEC", 1.0)
    monkeypatch.setattr(port, "STRETCH_SEC", 0.5)
    torch.testing.assert_close(codec.decode(codes), whole, rtol=0, atol=2e-6)
    few = codec.codebook_counts[0]
    assert codec.decode(codes[:few]).shape == whole.shape
