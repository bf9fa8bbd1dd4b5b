"""Several styles at once: their places are averaged before they become tokens, in the sampler and on the line."""

import numpy as np
import pytest
import torch

from adapters.decode.prompt_mix import PromptMix, read_prompt_mix
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.style_tokens import StandInStyle, blend
from data_prep.text_encoders.style import StyleEncoder

TEXTS = ["calm piano", "fast drums"]


@pytest.fixture(scope="module")
def files() -> BaseFiles:
    return resolve_base("debug-mrt2")


@pytest.fixture(scope="module")
def sampler(files: BaseFiles) -> Sampler:
    return Sampler.load(files, (), SampleSettings(duration_sec=0.4, precision="fp32", temperature=0.0))


def test_a_mix_is_the_mean_of_places():
    encoder, model = StyleEncoder(StandInStyle()), StandInStyle()
    entries = encoder.encode(TEXTS)
    places = model.embed_texts(TEXTS)
    mixed = encoder.mix(entries, [0.7, 0.3])
    assert mixed is not None and mixed.shape == (1, 12)
    np.testing.assert_array_equal(mixed[0].numpy(), model.tokens(blend(places, [0.7, 0.3])[None])[0])
    assert all((mixed != entry).any() for entry in entries)
    assert encoder.mix([entries[0], torch.zeros(1, 12)], [0.5, 0.5]) is None


def test_a_recording_has_a_place_too():
    encoder = StyleEncoder(StandInStyle())
    sound = np.random.default_rng(0).standard_normal((2, 48_000)).astype(np.float32)
    style, text = encoder.encode_sound(sound, 48_000), encoder.encode(TEXTS[:1])[0]
    assert encoder.mix([style, text], [0.5, 0.5]) is not None
    with pytest.raises(UserError, match="no sound"):
        encoder.encode_sound(sound[:, :0], 48_000)


def test_what_is_played_follows_the_mixed_tokens(sampler: Sampler):
    one, other = sampler.encode(TEXTS)
    assert sampler._mix is not None
    mixed = sampler._mix([one, other], [0.7, 0.3])
    assert mixed is not None
    prompts = [PromptMix.of(TEXTS, [0.7, 0.3]), PromptMix.of(TEXTS, [1.0, 0.0]), TEXTS[1]]
    played = sampler.codes(prompts, seeds=[1, 1, 1])
    alone = sampler.codes([mixed, one, other], seeds=[1, 1, 1])
    for ours, expected in zip(played, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert (played[0] != played[1]).any() and (played[0] != played[2]).any()


def test_a_fade_passes_through_styles_between(sampler: Sampler):
    fading = PromptMix.of(TEXTS[:1], [1.0]).moved(TEXTS[1:], [1.0], 0.0, 0.4)
    faded = sampler.codes([fading], seeds=[1])[0]
    started, ended = (sampler.codes([text], seeds=[1])[0] for text in TEXTS)
    np.testing.assert_array_equal(faded[:, 0], started[:, 0])
    assert (faded != started).any() and (faded != ended).any()


def test_weights_stand_before_prompts():
    mix = read_prompt_mix(["0.75 calm piano", "  .25   fast drums "])
    assert list(mix.texts) == TEXTS and list(mix.after) == [0.75, 0.25]
    for wrong in (["calm piano"], ["0.5"], ["0 one", "0 two"], ["-1 one"]):
        with pytest.raises(UserError):
            read_prompt_mix(wrong)
