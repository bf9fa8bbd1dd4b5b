"""Sampled decoding is the slow reference with the same seed, and the noise is what it says."""

from typing import Any

import pytest
import torch
from decode_fixtures import CPU, generate, packed, piece
from decode_reference import noise, play
from transformers import MusicgenForConditionalGeneration

from adapters.decode.noise import cell_words, gumbel, seed_word
from adapters.decode.sampling import Knobs, Sampling, draw
from configs.errors import UserError


@pytest.mark.parametrize("kind", ["mono", "stereo"])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 0.0), (0.7, 5, 0.0), (1.3, 0, 0.6), (1.0, 20, 0.5), (1.5, [1, 0, 3, 0], 0.0), (1.0, 0, [0.3, 0.0])],
)
def test_equals_the_slow_reference(
    request: pytest.FixtureRequest, kind: str, temperature: float, top_k: int | list[int], top_p: float | list[float]
) -> None:
    model: Any = MusicgenForConditionalGeneration.from_pretrained(request.getfixturevalue(f"{kind}_base")).eval()
    engine = packed(model)
    text = torch.randn(5, model.config.text_encoder.hidden_size, generator=torch.Generator().manual_seed(3))
    # The last codebook is greedy: options are per codebook.
    temperatures = [temperature] * (engine.spec.n_codebooks - 1) + [0.0]
    ks, ps = _for_each(top_k, engine.spec.n_codebooks), _for_each(top_p, engine.spec.n_codebooks)
    expected = play(model, text, 12, 5, guidance=2.5, temperature=temperatures, top_k=ks, top_p=ps)
    sampling = Sampling(
        2.5, temperatures, ks if isinstance(top_k, list) else top_k, ps if isinstance(top_p, list) else top_p
    )
    torch.testing.assert_close(generate(engine, [piece(text, 12, 5)], sampling, at_once=12)[0], expected)


def _for_each(value: Any, n_codebooks: int) -> list:
    """One value, or a pattern that repeats, for every codebook."""
    pattern = value if isinstance(value, list) else [value]
    return (pattern * n_codebooks)[:n_codebooks]


def test_noise_is_the_plain_python_noise() -> None:
    seeds = torch.tensor([seed_word(7)])
    words = cell_words(seeds, torch.tensor([[3, 2, 1, 0]]))
    tokens = torch.arange(6).expand(1, 4, 6)
    expected = [[[noise(7, 3 - k, k, token) for token in range(6)] for k in range(4)]]
    torch.testing.assert_close(gumbel(words, tokens), torch.tensor(expected))


def test_large_seeds_differ() -> None:
    seeds = [0, 1, 2**32, 2**32 + 1, 2**63]
    assert len({seed_word(seed) for seed in seeds}) == len(seeds)


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    knobs = Knobs(Sampling(1.0, 1.0, 0, 0.0), 1, 6, CPU)
    n = 20_000
    words = cell_words(torch.tensor([seed_word(4)]).expand(n), torch.arange(n)[:, None])
    drawn = draw(logits.expand(n, 1, 6), knobs, words)
    expected = logits.softmax(-1) * n
    chi_square = float(((torch.bincount(drawn.flatten(), minlength=6) - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # 99.9 % of chi-square with 5 degrees of freedom


def test_neighbouring_cells_are_independent() -> None:
    words = cell_words(torch.tensor([seed_word(s) for s in range(50)]), torch.arange(50 * 4).view(50, 4))
    values = gumbel(words, torch.arange(100).expand(50, 4, 100)).flatten(0, 1)  # [cells, tokens]
    correlation = torch.corrcoef(values) - torch.eye(len(values))
    assert correlation.abs().max() < 0.5  # 20,000 pairs of 100 values: 0.42 is the largest to expect by chance


@pytest.mark.parametrize(
    "wrong", [Sampling(temperature=[1.0, 1.0]), Sampling(temperature=-1.0), Sampling(top_p=1.5), Sampling(top_k=-3)]
)
def test_wrong_settings_are_refused(wrong: Sampling) -> None:
    with pytest.raises(UserError):
        Knobs(wrong, 4, 64, CPU)
