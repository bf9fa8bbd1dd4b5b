from collections import Counter
from pathlib import Path

import pytest
import torch
from training_fixtures import TRAIN_FRAMES

from adapters.family.musicgen.format import spec_of_sizes
from data_prep.prepared import PreparedDataset
from finetune.batches import Clip, Draw, Stream, chance, clips_of, collate, held_out
from finetune.buckets import even_batches

CLIPS = [Clip(f"clip{n}", 20 + 7 * n, ("one", "two", "three")) for n in range(7)]


SPEC = spec_of_sizes(16, 2, 2, 32, card=64, text_width=12)


def stream(**more) -> Stream:
    return Stream(CLIPS, **{"seed": 3, "max_frames": 40, "condition_dropout": 0.25, **more})


def test_chance_is_even_and_depends_on_everything() -> None:
    values = [chance("crop", 0, n, "clip") for n in range(4000)]
    assert min(values) >= 0 and max(values) < 1
    tenths = Counter(int(10 * value) for value in values)
    assert all(330 < count < 470 for count in tenths.values()) and len(tenths) == 10
    assert len({chance("crop", 0, 1, "a"), chance("order", 0, 1, "a"), chance("crop", 1, 0, "a")}) == 3
    assert chance("crop", 0, 1, "a") == chance("crop", 0, 1, "a")


def test_every_clip_comes_once_per_epoch_in_changing_order() -> None:
    epochs = [[d.clip_id for d in stream().step(epoch, len(CLIPS))] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(clip.id for clip in CLIPS)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_draw_does_not_depend_on_step_size_history_or_the_order_of_clips() -> None:
    one_by_one = [stream().step(step, 1)[0] for step in range(24)]
    sixes = [draw for step in range(4) for draw in stream().step(step, 6)]
    turned = Stream(CLIPS[::-1], seed=3, max_frames=40, condition_dropout=0.25)
    assert one_by_one == sixes == turned.step(0, 24)
    assert stream(seed=4).step(0, 24) != sixes


def test_crops_stay_inside_and_reach_both_ends() -> None:
    long = Clip("long", 45, ("text",))
    draws = Stream([long], seed=0, max_frames=40, condition_dropout=0.0).step(0, 200)
    assert {draw.start_frame for draw in draws} == set(range(6))
    assert all(draw.n_frames == 40 for draw in draws)
    short = Stream([Clip("short", 12, ("text",))], seed=0, max_frames=40, condition_dropout=0.0).step(0, 5)
    assert {(draw.start_frame, draw.n_frames) for draw in short} == {(0, 12)}


def test_captions_and_dropped_conditions_come_in_their_shares() -> None:
    draws = stream().step(0, 2100)
    seen = Counter(draw.caption for draw in draws)
    assert 420 < seen[None] < 630  # a quarter of 2100
    assert all(430 < seen[text] < 620 for text in ("one", "two", "three"))  # a third of the rest
    assert all(draw.caption is not None for draw in stream(condition_dropout=0.0).step(0, 100))
    assert all(draw.caption is None for draw in stream(condition_dropout=1.0).step(0, 100))


def test_a_clip_without_captions_is_trained_without() -> None:
    draws = Stream([Clip("a", 10, ())], seed=0, max_frames=40, condition_dropout=0.0).step(0, 3)
    assert [draw.caption for draw in draws] == [None] * 3
    assert held_out([Clip("a", 10, ())], max_clips=1, max_frames=40)[0].caption is None


def test_held_out_is_the_same_each_time_and_from_the_start() -> None:
    chosen = held_out(CLIPS, max_clips=4, max_frames=30)
    assert chosen == held_out(CLIPS[::-1], max_clips=4, max_frames=30) and len(chosen) == 4
    assert all(d.start_frame == 0 and d.caption == "one" and d.n_frames <= 30 for d in chosen)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_even_batches_share_out_everything_once(n_processes: int) -> None:
    draws = stream().step(0, 12)
    shares = [even_batches(draws, 2, rank, n_processes) for rank in range(n_processes)]
    assert {len(share) for share in shares} == {6 // n_processes}
    dealt = [draw for share in shares for part in share for draw in part]
    assert Counter(dealt) == Counter(draws)
    for part in shares[0]:
        assert part[0].n_frames - part[-1].n_frames <= 7  # of like length


def test_collate_pads_and_masks(tiny_data: Path) -> None:
    dataset = PreparedDataset(tiny_data)
    clips = clips_of(dataset, "train")
    assert [clip.n_frames for clip in clips] == list(TRAIN_FRAMES)
    draws = [Draw(clips[0].id, clips[0].captions[0], 5, 10), Draw(clips[1].id, None, 0, 30)]
    batch = collate(draws, dataset, SPEC)
    assert batch.codes.shape == (2, 4, 30) and batch.n_frames.tolist() == [10, 30]
    torch.testing.assert_close(batch.codes[0, :, :10], torch.tensor(dataset.codes(clips[0].id)[:, 5:15]).long())
    text = batch.conditions["text"]
    assert text.mask[0].all() and not batch.conditions["text"].mask[1].any()
    torch.testing.assert_close(
        batch.conditions["text"].values[0], torch.tensor(dataset.text_state(clips[0].captions[0]))
    )
    assert text.values[1].abs().sum() == 0


def test_collate_without_any_caption(tiny_data: Path) -> None:
    dataset = PreparedDataset(tiny_data)
    batch = collate([Draw("clip00", None, 0, 8)], dataset, SPEC)
    assert batch.conditions["text"].values.shape == (1, 1, 12) and not batch.conditions["text"].mask.any()


def test_kinds_are_dropped_alone_and_together():
    """Text-only draws stay what they were; with a melody, each of the four cases comes up as often as it should."""
    plain = stream(condition_dropout=0.25).step(0, 4000)
    draws = stream(condition_dropout=0.25, kinds=["melody"]).step(0, 4000)
    assert all(not draw.dropped for draw in plain)
    assert all(
        both.caption is None and both.dropped for bare, both in zip(plain, draws, strict=True) if not bare.caption
    )
    cases = [(draw.caption is None, "melody" in draw.dropped) for draw in draws]
    shares = {case: cases.count(case) / len(cases) for case in set(cases)}
    alone = 0.75 * 0.25
    expected = {(True, True): 0.25 + 0.75 / 16, (True, False): alone * 0.75, (False, True): alone * 0.75}
    for case, share in expected.items():
        assert abs(shares[case] - share) < 0.03, shares
    assert not any(draw.dropped for draw in stream(condition_dropout=0.0, kinds=["melody"]).step(0, 100))
