"""Part of the past is hidden from clips that follow something: which part, from whom, and that training sees it."""

import numpy as np
import torch

from finetune.batches import Clip, Draw, Hidden, Stream, held_out
from finetune.history import BLOCK_STEPS, hidden_steps, hide_past

CLIPS = [Clip(f"c{number}", 50, ("words",)) for number in range(1000)]
SPECIAL = 99


def draws_of(**more):
    return Stream(CLIPS, seed=0, max_frames=50, condition_dropout=0.1, kinds=["context"], **more).step(0, 1000)


def test_as_many_clips_as_asked_for_and_any_share_of_each():
    draws = draws_of(added=["context"], history_dropout=0.6)
    following = [draw for draw in draws if "context" not in draw.dropped]
    shares = [draw.hidden.share for draw in following if draw.hidden]
    assert 0.54 < len(shares) / len(following) < 0.66
    assert 0.45 < np.mean(shares) < 0.55 and min(shares) < 0.05 and max(shares) > 0.95
    assert len({draw.hidden.seed for draw in following if draw.hidden}) == len(shares)


def test_not_from_clips_that_have_nothing_to_follow():
    draws = draws_of(added=["context"], history_dropout=1.0)
    assert any("context" in draw.dropped for draw in draws)
    assert all((draw.hidden is None) == ("context" in draw.dropped) for draw in draws)
    assert all(draw.hidden is None for draw in draws_of(history_dropout=1.0)), "the base's own conditions"
    assert all(draw.hidden is None for draw in draws_of(added=["context"]))


def test_not_from_clips_that_hold_on_to_the_base():
    draws = draws_of(added=["context"], history_dropout=1.0, prior_share=0.5)
    assert any(draw.prior for draw in draws)
    assert all(draw.hidden is None for draw in draws if draw.prior)


def test_other_choices_stay_what_they_were():
    plain, hiding = draws_of(), draws_of(added=["context"], history_dropout=0.8)
    told = [(d.clip_id, d.caption, d.start_frame, d.dropped) for d in plain]
    assert told == [(d.clip_id, d.caption, d.start_frame, d.dropped) for d in hiding]


def test_held_out_clips_show_all_of_their_past():
    assert all(draw.hidden is None for draw in held_out(CLIPS, max_clips=8, max_frames=50))


def hiding(share: float, seed: int = 1) -> Draw:
    return Draw("c", None, 0, 500, hidden=Hidden(share, seed))


def test_steps_are_hidden_in_blocks_and_in_all_codebooks():
    inputs = torch.arange(3 * 4 * 500).reshape(3, 4, 500) % 50
    seen = hide_past(inputs, [hiding(0.5), Draw("c", None, 0, 500), hiding(0.2, 7)], SPECIAL)
    gone = seen == SPECIAL
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert not gone[1].any()
    assert torch.equal(seen[~gone], inputs[~gone])
    blocks = gone[0, 0, : 500 // BLOCK_STEPS * BLOCK_STEPS].unflatten(0, (-1, BLOCK_STEPS))
    assert torch.equal(blocks.all(1), blocks.any(1))
    assert 0.3 < float(gone[0].float().mean()) < 0.7 and 0.05 < float(gone[2].float().mean()) < 0.4


def test_the_ends_of_the_scale():
    assert not hidden_steps([hiding(0.0)], 100).any()
    assert hidden_steps([hiding(1.0)], 100).all()


def test_what_is_hidden_depends_on_the_draw_alone():
    alone = hidden_steps([hiding(0.5)], 120)
    beside = hidden_steps([hiding(0.9, 4), hiding(0.5)], 300)
    assert np.array_equal(alone[0], beside[1, :120])


def test_nothing_hidden_is_the_same_tensor():
    inputs = torch.zeros(1, 4, 10, dtype=torch.long)
    assert hide_past(inputs, [Draw("c", None, 0, 10)], SPECIAL) is inputs
