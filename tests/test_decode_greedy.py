"""Greedy decoding is transformers' own `generate`, token for token."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from decode_fixtures import generate, packed, piece
from torch import Tensor
from transformers import MusicgenForConditionalGeneration

from adapters.decode.projections import HalfWeights, has_fbgemm
from adapters.decode.sampling import Sampling
from adapters.family.musicgen.engine import MusicgenEngine


@dataclass
class Base:
    """The reference model and the same weights packed."""

    model: Any
    engine: MusicgenEngine

    @property
    def lag(self) -> int:
        return self.engine.spec.largest_lag


@dataclass
class Texts:
    """Prompts as the reference wants them, and as states [L, D_text] without padding."""

    ids: Tensor
    mask: Tensor
    states: list[Tensor]


@pytest.fixture(scope="module", params=["mono", "stereo"])
def base(request: pytest.FixtureRequest) -> Base:
    folder = request.getfixturevalue(f"{request.param}_base")
    model = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    return Base(model, packed(model))


def texts(base: Base, n: int) -> Texts:
    lengths = torch.arange(3, 3 + n)
    mask = (torch.arange(n + 2) < lengths[:, None]).long()
    ids = torch.randint(2, 100, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    with torch.no_grad():
        states = base.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return Texts(ids, mask, [row[:length] for row, length in zip(states, lengths, strict=True)])


def reference(base: Base, given: Texts, n_frames: int, guidance: float, prompt: Tensor | None = None) -> Tensor:
    """Codes [B, K, T] of transformers' generate: what it hands to its codec."""
    found = []
    codec = base.model.audio_encoder
    plain = codec.decode
    codec.decode = lambda codes, **options: (found.append(codes[0]), plain(codes, **options))[1]
    base.model.generation_config.cache_implementation = None
    try:
        base.model.generate(
            input_ids=given.ids,
            attention_mask=given.mask,
            decoder_input_ids=None if prompt is None else prompt.flatten(0, 1),
            do_sample=False,
            guidance_scale=guidance,
            max_length=n_frames + 1 + base.lag,
        )
    finally:
        del codec.decode
    return found[0] if len(found) == 1 else torch.stack(found, dim=2).flatten(1, 2)  # left and right interleaved


def ours(base: Base, given: Texts, n_frames: int, guidance: float, prompt: Tensor | None = None) -> Tensor:
    prompts = [None] * len(given.states) if prompt is None else list(prompt)
    pieces = [piece(text, n_frames, 0, known) for text, known in zip(given.states, prompts, strict=True)]
    return torch.stack(generate(base.engine, pieces, Sampling(guidance, temperature=0.0), at_once=n_frames))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("n_pieces", [1, 4])
def test_from_nothing(base: Base, n_pieces: int, guidance: float) -> None:
    given = texts(base, n_pieces)
    torch.testing.assert_close(ours(base, given, 40, guidance), reference(base, given, 40, guidance))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("n_pieces", [1, 4])
def test_continuing_audio(base: Base, n_pieces: int, guidance: float) -> None:
    given = texts(base, n_pieces)
    size = (n_pieces, base.engine.spec.n_codebooks, 11)
    prompt = torch.randint(base.engine.spec.card, size, generator=torch.Generator().manual_seed(2))
    got = ours(base, given, 40, guidance, prompt)
    torch.testing.assert_close(got, reference(base, given, 40, guidance, prompt))
    torch.testing.assert_close(got[..., :11], prompt)


@pytest.mark.parametrize("halves", [False, True])
def test_in_the_fp32_of_a_cpu(mono_base, halves: bool) -> None:
    """With oneDNN's layout, and with the fp16 storage that a base published in half precision gets."""
    model = MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()
    if halves:
        for parameter in [*model.decoder.parameters(), *model.enc_to_dec_proj.parameters()]:
            parameter.data = parameter.data.half().float()
    base = Base(model, packed(model, "fp32"))
    assert isinstance(base.engine.weights.layers[0].fc1, HalfWeights) == (halves and has_fbgemm())
    given = texts(base, 3)
    torch.testing.assert_close(ours(base, given, 40, 3.0), reference(base, given, 40, 3.0))
