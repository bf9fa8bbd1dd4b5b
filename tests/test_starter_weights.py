"""The model that comes with Woodshed: complete, small, and the same in transformers and here."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, MusicgenForConditionalGeneration

from adapters.sampler import Sampler
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec

PROMPT = "fast music with drums, 120 bpm, piano"
MIB = 2**20


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_base("starter").folder


def test_it_is_small(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sum(sizes.values()) <= 24 * MIB and max(sizes.values()) <= 12 * MIB
    assert {Path(name).suffix for name in sizes} == {".json", ".safetensors"}


def test_transformers_plays_the_same_tokens(folder: Path) -> None:
    """Greedily, in fp32, without guidance, decoded to sound by both."""
    settings = SampleSettings(duration_sec=0.6, guidance=1.0, temperature=0.0, precision="fp32")
    ours = Sampler.load(resolve_base("starter"), [], settings).sample([PROMPT])[0]
    model = MusicgenForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32).eval()
    inputs = AutoProcessor.from_pretrained(folder)(text=[PROMPT], return_tensors="pt")
    n_frames = ours.codes.shape[-1]
    theirs = model.generate(**inputs, do_sample=False, guidance_scale=1.0, max_new_tokens=n_frames + 3)
    n = min(theirs.shape[-1], ours.waveform.shape[-1])
    torch.testing.assert_close(ours.waveform[:, :n], theirs[0, :, :n], rtol=1e-3, atol=1e-4)
    assert ours.waveform.abs().max() > 0.01, "it plays something"


def test_its_codec_knows_a_tone(folder: Path) -> None:
    """An A of 440 Hz is one afterwards."""
    codec = load_base_codec(resolve_base("starter"))
    time = torch.arange(2 * codec.sample_rate_hz) / codec.sample_rate_hz
    tone = 0.3 * torch.stack([(440 * h * 2 * torch.pi * time).sin() / h for h in (1, 2, 3)]).sum(0)
    codes = codec.encode([tone[None]])[0]
    spectrum = torch.stft(
        torch.as_tensor(codec.decode(codes))[0], 4096, window=torch.hann_window(4096), return_complex=True
    )
    peak_hz = spectrum.abs().mean(dim=1).argmax() * codec.sample_rate_hz / 4096
    assert abs(float(peak_hz) - 440) < 10
