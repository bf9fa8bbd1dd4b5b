"""Magenta RealTime 2's language model: equal to the official code, and one step at a time equal to the whole."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mrt2_fixtures import (
    CASES,
    N_FRAMES,
    OFFICIAL,
    case_inputs,
    conditions_of,
    magenta_lm,
    official_environment,
    reference,
    write_case,
)
from torch.testing import assert_close

from adapters.conditions import Condition, Conditions
from adapters.decode.projections import has_fbgemm
from adapters.family.magenta_rt2.conditions import MagentaConditions, strength_bins
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.playing import laid_out_for_playing
from adapters.family.magenta_rt2.ring import window_mask
from adapters.family.magenta_rt2.spec import GROUPS
from adapters.family.magenta_rt2.steps import MagentaSteps
from adapters.pattern import IGNORE

K = 12


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    """Name, model, codes and conditions of a case."""
    folder = write_case(request.param, tmp_path_factory.mktemp("mrt2") / request.param)
    inputs = case_inputs(request.param)
    return request.param, magenta_lm(folder), inputs["codes"].long(), conditions_of(inputs["ids"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> MagentaLM:
    return magenta_lm(write_case("tiny", tmp_path_factory.mktemp("mrt2") / "tiny"))


def forced(steps: MagentaSteps, column: torch.Tensor) -> torch.Tensor:
    """Logits [B, K, card] of the next frame, which is then made to be `column` [B, K]."""
    seen = []

    def draw(logits, level):
        seen.append(logits)
        return column[:, level : level + 1]

    assert torch.equal(steps.next(draw), column)
    return torch.cat(seen, dim=1)


def likeliest(logits, level):
    return logits.argmax(-1)


def test_logits_equal_the_official_codes(case):
    name, lm, codes, conditions = case
    expected = reference(name)
    assert_close(lm.encode(conditions, N_FRAMES), expected["source"], rtol=1e-5, atol=1e-5)
    assert_close(lm(codes, conditions), expected["logits"], rtol=1e-5, atol=2e-5)


def test_played_alone_it_plays_what_the_official_sampler_plays(case):
    name, lm, _, conditions = case
    steps = MagentaSteps(lm, conditions)
    played = torch.stack([steps.next(likeliest) for _ in range(N_FRAMES)], dim=2)
    assert torch.equal(played, reference(name)["greedy"].long())


@pytest.mark.parametrize("stretches", [(), (1,), (3, 1, 4), (N_FRAMES - 1,), (5, 8)])
def test_steps_equal_the_whole(case, stretches):
    """Whatever part is read in stretches of any length, shorter and longer than the window."""
    _, lm, codes, conditions = case
    whole = lm(codes, conditions)
    steps, start = MagentaSteps(lm, conditions), 0
    for n_frames in stretches:
        steps.read(codes[:, :, start : start + n_frames])
        start += n_frames
    for frame in range(start, N_FRAMES):
        assert_close(forced(steps, codes[:, :, frame]), whole[:, :, frame], rtol=1e-5, atol=2e-5)
    assert steps.n_frames == N_FRAMES


def test_conditions_exchanged_while_playing(tiny):
    inputs = case_inputs("tiny")
    codes, moving = inputs["codes"].long(), conditions_of(inputs["ids"])
    steps = MagentaSteps(tiny, moving.frames(0, 1))
    logits = []
    for frame in range(N_FRAMES):
        steps.follow(moving.frames(frame, frame + 1))
        logits.append(forced(steps, codes[:, :, frame]))
    assert_close(torch.stack(logits, dim=2), tiny(codes, moving), rtol=1e-5, atol=2e-5)


def test_the_last_conditions_stay(tiny):
    inputs = case_inputs("tiny")
    codes, moving = inputs["codes"].long(), conditions_of(inputs["ids"])
    steps = MagentaSteps(tiny, moving.frames(0, 3))
    frames = torch.tensor([0, 1, 2] + [2] * (N_FRAMES - 3))
    held = replace(
        moving, **{name: getattr(moving, name)[:, frames] for name in ("style", "notes", "drums", "strengths")}
    )
    whole = tiny(codes, held)
    for frame in range(N_FRAMES):
        assert_close(forced(steps, codes[:, :, frame]), whole[:, :, frame], rtol=1e-5, atol=2e-5)


def test_memory_stays_as_it_is(tiny):
    """300 frames: no tensor that the steps keep grows after the window is full."""

    def kept(steps):
        tensors = [tensor for pair in steps._rings for ring in pair for tensor in (ring.keys, ring.values)]
        return [tuple(tensor.shape) for tensor in [*tensors, steps._source, steps._next_input]]

    steps = MagentaSteps(tiny, MagentaConditions.unknown(2))
    steps.next(likeliest)
    first = kept(steps)
    for _ in range(299):
        steps.next(likeliest)
    assert kept(steps) == first and steps.n_frames == 300
    assert steps._rings[0][0].keys.shape[2] == tiny.sizes.window_frames + 2  # itself and the sink besides


def test_what_each_cell_knows(tiny):
    """A changed code moves logits of later levels and later frames alone, as far as the windows of all layers reach."""
    codes, conditions = case_inputs("tiny")["codes"].long(), MagentaConditions.unknown(1)
    frame, level = 3, 5
    changed = codes.clone()
    changed[0, level, frame] = (changed[0, level, frame] + 1) % tiny.card
    moved = (tiny(codes, conditions) - tiny(changed, conditions)).abs().amax((0, 3)) > 0  # [K, T]
    expected = torch.zeros(K, N_FRAMES, dtype=torch.bool)
    expected[level + 1 :, frame] = True
    reach = tiny.sizes.temporal.layers * tiny.sizes.window_frames
    expected[:, frame + 1 : frame + 1 + reach + 1] = True
    assert torch.equal(moved, expected)


def test_window_of_frames():
    seen = window_mask(3, 2, 2, sink=True).int().tolist()
    assert seen == [[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1]]


def test_conditions_are_heard_from_their_frame_on(tiny):
    codes, frame = case_inputs("tiny")["codes"].long(), 6
    plain = conditions_of(case_inputs("tiny")["ids"])
    drums = plain.drums.clone()
    drums[0, frame] = 1 - drums[0, frame].clamp(min=0)
    moved = (tiny(codes, plain) - tiny(codes, replace(plain, drums=drums))).abs().amax((0, 1, 3)) > 0
    assert not moved[:frame].any() and moved[frame:].all()


def test_codes_from_the_middle_of_a_piece(tiny):
    """With one window of past, and the frame before it, a layer's first frame is heard in full."""
    codes, conditions = case_inputs("tiny")["codes"].long(), MagentaConditions.unknown(1)
    cut = tiny(codes[:, :, 1:], conditions, previous=codes[:, :, 0])
    alone = tiny(codes[:, :, 1:], conditions)
    steps = MagentaSteps(tiny, conditions)
    steps.read(codes[:, :, :1])
    assert (cut[:, :, 0] - alone[:, :, 0]).abs().max() > 0.01
    state = tiny.temporal_states(tiny.embed(codes[:, :, :1].transpose(1, 2)).mean(2), tiny.encode(conditions, 1))
    assert_close(cut[:, 0, 0], tiny.level_logits(state, tiny.embed(codes[:, :, 1:2].transpose(1, 2)))[:, 0, 0])


def test_rows_are_independent(tiny):
    inputs = [case_inputs(name) for name in ("tiny", "tiny_again")]
    codes = torch.cat([one["codes"] for one in inputs]).long()
    both = conditions_of(torch.cat([one["ids"] for one in inputs]))
    logits = tiny(codes, both)
    for row in range(2):
        assert_close(logits[row : row + 1], tiny(codes[row : row + 1], both.rows(torch.tensor([row]))))


def test_conditions_by_kind(tiny):
    """As batches hold them: a style for the clip, notes by the frame, what is masked or absent unknown."""
    draw = torch.Generator().manual_seed(4)
    style = torch.randint(0, 1024, (2, 1, 12), generator=draw)
    notes = torch.randint(0, 4, (2, N_FRAMES, 128), generator=draw)
    masks = torch.tensor([[True], [False]]), torch.arange(N_FRAMES)[None].expand(2, -1) < 5
    by_kind = Conditions({"style": Condition(style, masks[0]), "notes": Condition(notes, masks[1])})
    found = MagentaConditions.of_kinds(by_kind, 2)
    assert torch.equal(found.style[0], style[0].expand(N_FRAMES, 12)) and (found.style[1] == -1).all()
    assert torch.equal(found.notes[:, :5], notes[:, :5]) and (found.notes[:, 5:] == -1).all()
    assert (found.drums == -1).all() and (found.strengths == torch.tensor([20, 10, 2])).all()
    codes = case_inputs("tiny")["codes"].long().expand(2, -1, -1)
    assert torch.equal(tiny(codes, by_kind), tiny(codes, found))
    null = Conditions.null(2, tiny.spec)
    assert torch.equal(tiny(codes, null), tiny(codes, MagentaConditions.unknown(2)))
    wrong = Conditions({"notes": by_kind["notes"], "drums": Condition(notes[:, :3, :1], masks[1][:, :3])})
    with pytest.raises(ValueError, match="different numbers"):
        MagentaConditions.of_kinds(wrong, 2)


def test_the_port_of_language_models(tiny):
    codes, conditions = case_inputs("tiny")["codes"].long(), MagentaConditions.unknown(1)
    inputs, labels = tiny.inputs_and_labels(codes, torch.tensor([9]))
    assert torch.equal(labels[..., :9], codes[..., :9]) and (labels[..., 9:] == IGNORE).all()
    whole = tiny(inputs, conditions)
    for level in (0, 7):
        columns = torch.cat([torch.full_like(codes[..., :1], tiny.spec.special), codes[..., :6]], dim=2)
        next_level = tiny.next_logits(columns, codes[:, :level, 6], conditions)
        assert_close(next_level[:, 0], whole[:, level, 6], rtol=1e-5, atol=2e-5)
    assert len(tiny.blocks) == tiny.spec.layers == 2 and tiny.levels_at_once == 1
    assert tiny.spec.frame_rate == 25 and tiny.spec.window_sec == 2 * 6 / 25


def test_strengths_as_the_official_player_bins_them():
    assert strength_bins(3.0, 1.0, 1.0) == (20, 10, 2)
    assert strength_bins(-1.0, 7.0, 7.0) == (0, 40, 8)
    assert strength_bins(-9.0, 99.0, 2.4) == (0, 40, 3)


def test_dropped_rows_know_nothing(tiny):
    conditions = conditions_of(torch.cat([case_inputs(name)["ids"] for name in ("tiny", "tiny_again")]))
    dropped = conditions.dropped(torch.tensor([False, True]))
    assert torch.equal(dropped.ids()[0], conditions.ids()[0])
    assert (dropped.ids()[1, :, :141] == 6).all()
    assert torch.equal(dropped.strengths, conditions.strengths)


@pytest.mark.parametrize(("name", "value"), [("style", 1024), ("notes", 4), ("drums", -2), ("strengths", -1)])
def test_values_outside_their_slot_are_refused(name, value):
    conditions = MagentaConditions.unknown(1)
    wrong = getattr(conditions, name).clone()
    wrong[0, 0, 0] = value
    with pytest.raises(ValueError, match=name):
        replace(conditions, **{name: wrong}).ids()


def test_half_precision_is_close(tiny, tmp_path):
    folder = write_case("tiny", tmp_path)
    codes, conditions = case_inputs("tiny")["codes"].long(), conditions_of(case_inputs("tiny")["ids"])
    half = magenta_lm(folder, "bf16")(codes, conditions)
    assert half.dtype == torch.bfloat16
    assert (half.float() - tiny(codes, conditions)).abs().mean() < 0.1


def test_every_projection_is_a_plain_linear(tiny):
    linear = {name.rpartition(".")[2] for name, module in tiny.named_modules() if type(module) is torch.nn.Linear}
    assert {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "style_proj", "adapter"} <= linear
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_one_clip_is_learnt_by_heart_and_given_back(tmp_path):
    """LoRA on every group, as plain peft puts it there: near-zero loss, and the clip's own codes when played."""
    import peft

    lm = magenta_lm(write_case("tiny", tmp_path))
    codes, conditions = case_inputs("tiny")["codes"].long()[:, :, :8], MagentaConditions.unknown(1)
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules=f"^({'|'.join(GROUPS.values())})$")
    torch.manual_seed(0)
    peft.inject_adapter_in_model(settings, lm)
    learnt = [parameter for name, parameter in lm.named_parameters() if "lora_" in name]
    optimizer = torch.optim.AdamW([parameter.requires_grad_(True) for parameter in learnt], lr=2e-2)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(lm(codes, conditions).movedim(-1, 1), codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # pyright: ignore[reportPossiblyUnboundVariable]
    steps = MagentaSteps(lm.eval(), conditions)
    assert torch.equal(torch.stack([steps.next(likeliest) for _ in range(8)], dim=2), codes)


@pytest.mark.parametrize(("kind", "tolerance"), [("plain", 1e-5), ("fp32", 1e-5), ("fp16", 0.02), ("bf16", 0.2)])
def test_laid_out_for_playing(tiny, kind, tolerance):
    if kind in ("fp16",) and not has_fbgemm():
        pytest.skip("no fast fp16 products on this CPU")
    inputs = case_inputs("tiny")
    codes, conditions = inputs["codes"].long(), conditions_of(inputs["ids"])
    whole = tiny(codes, conditions)
    seen = []

    def wrap(name, product):
        seen.append(name)
        return product

    played = laid_out_for_playing(tiny, kind, wrap)
    steps = MagentaSteps(played, conditions)
    for frame in range(4):
        assert (forced(steps, codes[:, :, frame]) - whole[:, :, frame]).abs().max() < tolerance
    assert {"temporal.layers.0.ffn.fc1", "depth.adapter", "depth.heads.11"} <= set(seen)
    assert played.codes.weight is tiny.codes.weight and type(tiny.depth.heads[0]) is torch.nn.Linear


@pytest.fixture(scope="module")
def official_python(tmp_path_factory) -> Path:
    return official_environment(tmp_path_factory.mktemp("official") / "venv")


@pytest.mark.network
def test_sizes_are_those_of_the_official_models(official_python, tmp_path):
    from data_prep.codec.spectrostream.layout import codec_shapes
    from data_prep.codec.spectrostream.shape import CodecShape
    from data_prep.magenta_rt2 import layout
    from data_prep.magenta_rt2.sizes import BASE, SMALL

    subprocess.run([official_python, OFFICIAL, "shapes", tmp_path / "shapes.json"], check=True)
    found = json.loads((tmp_path / "shapes.json").read_text())
    for name, spec in (("mrt2_small", SMALL), ("mrt2_base", BASE)):
        ours = {key.replace(layout.LM, "params/"): list(shape) for key, shape in layout.lm_shapes(spec).items()}
        assert found[name] == ours
    codec = {f"params/{key}": list(shape) for key, shape in codec_shapes(CodecShape()).items()}
    assert found["codec"] == codec
