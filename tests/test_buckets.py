"""Buckets: nothing lost, nothing too large, little padding, and the gradient of clips taken one by one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from adapters.conditions import Conditions
from adapters.family.musicgen.family import FAMILY
from adapters.family.musicgen.format import spec_of_sizes
from adapters.lora import attach
from configs.train import LoraSettings
from finetune.batches import Draw
from finetune.buckets import OVERHEAD_FRAMES, micro_batches, padded_frames
from finetune.lean_loss import codebook_sums


def draws_of(lengths: list[int]) -> list[Draw]:
    return [Draw(f"clip-{number:03}", None, 0, length) for number, length in enumerate(lengths)]


LENGTHS = st.lists(st.integers(1, 1500), min_size=1, max_size=24)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_every_clip_once_and_nothing_too_large(lengths: list[int], batch_size: int, n_processes: int):
    draws = draws_of(lengths)
    shares = [micro_batches(draws, batch_size, 1500, rank, n_processes) for rank in range(n_processes)]
    assert sorted(d.clip_id for share in shares for batch in share for d in batch) == [d.clip_id for d in draws]
    for share in shares:
        assert all(len(batch) * max(d.n_frames for d in batch) <= batch_size * 1500 for batch in share)
    counts = [sum(map(len, share)) for share in shares]
    assert max(counts) - min(counts) <= 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=9), st.integers(1, 3))
def test_it_is_the_cheapest_of_all_ways_to_cut(lengths: list[int], batch_size: int):
    ordered = sorted(lengths, reverse=True)
    best = None
    for cuts in range(2 ** (len(ordered) - 1)):
        runs, run = [], [ordered[0]]
        for place, length in enumerate(ordered[1:]):
            if cuts >> place & 1:
                runs.append(run)
                run = []
            run.append(length)
        runs.append(run)
        if all(len(run) == 1 or len(run) * run[0] <= batch_size * 1500 for run in runs):
            cost = sum(len(run) * run[0] + OVERHEAD_FRAMES for run in runs)
            best = cost if best is None else min(best, cost)
    batches = micro_batches(draws_of(lengths), batch_size, 1500, 0, 1)
    assert padded_frames(batches) + OVERHEAD_FRAMES * len(batches) == best


def test_equal_clips_are_cut_as_the_settings_say():
    batches = micro_batches(draws_of([1500] * 8), 2, 1500, 0, 1)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]


def test_short_clips_are_not_padded_to_long_ones():
    lengths = [1500, 1500, 1480, 260, 250, 250, 300, 280]
    plain = [[1500, 1500], [1480, 300], [280, 260], [250, 250]]
    batches = micro_batches(draws_of(lengths), 2, 1500, 0, 1)
    assert padded_frames(batches) < 0.85 * sum(len(batch) * max(batch) for batch in plain)
    assert max(map(len, batches)) > 2  # more short ones fit than long ones


def test_the_gradient_is_that_of_clips_taken_one_by_one():
    shape = spec_of_sizes(32, 2, 2, 64, card=32, text_width=24, positions=256)
    torch.manual_seed(0)
    lm = FAMILY.from_spec(shape)
    lm.is_loaded_in_8bit = lm.is_loaded_in_4bit = False
    adapter = attach(lm, LoraSettings(rank=4))
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters().values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    lengths = [40, 12, 9, 31, 33, 10]
    codes = [torch.randint(32, (4, length), generator=generator) for length in lengths]
    texts = [torch.randn(5, 24, generator=generator) for _ in lengths]

    def gradient(batches: list[list[Draw]]) -> list[torch.Tensor]:
        lm.zero_grad()
        for batch in batches:
            numbers = [int(draw.clip_id.split("-")[1]) for draw in batch]
            padded = torch.zeros(len(batch), 4, max(lengths[n] for n in numbers), dtype=torch.int64)
            for row, number in enumerate(numbers):
                padded[row, :, : lengths[number]] = codes[number]
            n_frames = torch.tensor([lengths[number] for number in numbers])
            inputs, labels = lm.inputs_and_labels(padded, n_frames)
            conditions = Conditions.of_text(torch.stack([texts[n] for n in numbers]), torch.ones(len(batch), 5).bool())
            (codebook_sums(lm(inputs, conditions), labels).sum() / sum(lengths)).backward()
        return [p.grad.clone() for p in adapter.parameters().values() if p.grad is not None]

    draws = draws_of(lengths)
    batches = micro_batches(draws, 2, 40, 0, 1)
    assert 1 < len(batches) < 6 and max(map(len, batches)) > 2
    one_by_one = gradient([[draw] for draw in draws])
    assert len(one_by_one) == 2 * len(adapter.modules)
    for got, want in zip(gradient(batches), one_by_one, strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_both_kinds_of_clips_are_shared_out_together() -> None:
    """However few of one kind there are: no process is left without a clip, and no micro-batch mixes them."""
    for n_prior in range(5):
        draws = [Draw(f"clip{n}", "said", 0, 40 + n, prior=n < n_prior) for n in range(4)]
        shares = [micro_batches(draws, 2, 50, rank, 2) for rank in range(2)]
        assert [sum(map(len, share)) for share in shares] == [2, 2]
        assert sorted(d.clip_id for share in shares for batch in share for d in batch) == [d.clip_id for d in draws]
        assert all(len({draw.prior for draw in batch}) == 1 for share in shares for batch in share)
