"""The sampler: one piece by prompt, states or codes; around a model in training; turnable adapters in a stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sample_command import adapter  # noqa: F401  (a fixture)

from adapters import lora
from adapters.decode.arithmetic import choose
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from configs.train import LoraSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.text_encoder import TextEncoder

SETTINGS = SampleSettings.model_validate({"duration_sec": 0.6, "precision": "fp32"})


@pytest.fixture(params=["mono", "stereo"])
def base(request: pytest.FixtureRequest) -> BaseFiles:
    return BaseFiles("debug", None, request.getfixturevalue(f"{request.param}_base"))


def test_words_and_states_are_the_same(base: BaseFiles) -> None:
    sampler = Sampler.load(base, (), SETTINGS)
    by_word = sampler.sample(["calm piano", "drums"])
    states = TextEncoder.load(base).encode(["calm piano", "drums"])
    codes = sampler.codes(states)
    for take, other in zip(by_word, codes, strict=True):
        np.testing.assert_array_equal(take.codes, other)
        torch.testing.assert_close(take.waveform, load_base_codec(base).decode(other), rtol=0, atol=1e-6)
        assert take.codes.dtype == np.int16 and take.waveform.shape == (base.spec.channels, 19_200)


def test_around_a_model_in_training(base: BaseFiles) -> None:
    """Previews: same codes as from disk while the adapter is new, and nothing of the model has moved."""
    states = TextEncoder.load(base).encode(["calm piano"])
    untuned = Sampler.load(base, (), SETTINGS).codes(states)[0]
    lm: LM = load_lm(base)
    attached = lora.attach(lm, LoraSettings.model_validate({"rank": 2, "dropout": 0.3}))
    lm.train()
    flags = [module.training for module in lm.modules()]
    generator = torch.get_rng_state()
    sampler = Sampler.around(lm, SETTINGS)
    np.testing.assert_array_equal(sampler.codes(states)[0], untuned)
    with torch.no_grad():
        for layer in attached.layers.values():
            layer.lora_B[lora.NAME].weight += 0.5
    assert (sampler.codes(states)[0] != untuned).any()
    assert [module.training for module in lm.modules()] == flags
    assert torch.equal(torch.get_rng_state(), generator)
    with pytest.raises(ValueError, match="text states"):
        sampler.codes(["words"])
    with pytest.raises(ValueError, match="codec"):
        sampler.sample(states)


def test_n_frames_and_a_prompt(base: BaseFiles) -> None:
    sampler = Sampler.load(base, (), SETTINGS)
    whole = sampler.codes(["x"], n_frames=30)[0]
    # Random numbers follow the piece's frames: going on from its first part is the piece.
    np.testing.assert_array_equal(sampler.codes(["x"], n_frames=10, continue_from=whole[:, :20])[0], whole)


def test_single_codebooks_may_have_their_own_settings(mono_base) -> None:
    """The first frame's first token has heard nothing yet: it follows its own codebook's settings alone."""
    files = BaseFiles("debug", None, mono_base)

    def first_frame(**settings: Any) -> np.ndarray:
        shared = {"precision": "fp32", "guidance": 1.0, "duration_sec": 0.02, "top_k": 0}
        return Sampler.load(files, (), SampleSettings.model_validate({**shared, **settings})).codes(["x"])[0][:, 0]

    drawn, greedy = first_frame(temperature=9.0), first_frame(temperature=0.0)
    assert drawn[0] != greedy[0]
    assert first_frame(temperature=9.0, per_codebook={"temperature": [0.0, 9.0, 9.0, 9.0]})[0] == greedy[0]
    assert first_frame(temperature=9.0, per_codebook={"top_k": [1, 0, 0, 0]})[0] == greedy[0]
    assert first_frame(temperature=9.0, per_codebook={"top_k": [0, 1, 1, 1]})[0] == drawn[0]
    assert first_frame(temperature=9.0, per_codebook={"top_p": [0.0001, 0.0, 0.0, 0.0]})[0] == greedy[0]
    with pytest.raises(UserError, match="4: one per codebook"):
        first_frame(per_codebook={"top_p": [0.5, 0.5]})


def test_a_live_adapter_turns_in_a_stream(adapter: Path) -> None:  # noqa: F811
    files = resolve_base("debug")
    settings = SETTINGS.model_copy(update={"duration_sec": 2.0})
    live = Sampler.load(files, [AdapterSpec(adapter)], settings, live=True)
    merged = Sampler.load(files, [AdapterSpec(adapter)], settings).sample(["x"])[0].waveform
    with live.stream("x") as music:
        straight = torch.cat(list(music), dim=1)
    torch.testing.assert_close(straight, merged, rtol=0, atol=2e-6)
    with live.stream("x") as music:
        chunks = iter(music)
        first = next(chunks)
        live.set_strength("mine", 0.0)
        rest = torch.cat(list(chunks), dim=1)
    n = first.shape[1]
    torch.testing.assert_close(first, straight[:, :n])
    assert (rest - straight[:, n:]).abs().max() > 1e-3
    with pytest.raises(UserError, match="cannot change"):
        live.set_strength("nobody", 1.0)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_arithmetic_plays_too(base: BaseFiles, precision: str) -> None:
    try:
        choose(precision, torch.device("cpu"))  # pyright: ignore[reportArgumentType]
    except UserError:
        pytest.skip("needs AVX2")
    sampler = Sampler.load(base, (), SETTINGS.model_copy(update={"precision": precision}))
    codes = sampler.codes(["x"])[0]
    assert sampler.label == precision and codes.shape[1] == 30 and codes.min() >= 0
