"""Adapters in the engine: live is merged, borrowed is packed, and turning while playing changes what comes after."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from decode_fixtures import generate, packed, piece
from torch import Tensor

from adapters import lora
from adapters.decode.engine import Packing
from adapters.decode.sampling import Sampling
from adapters.decode.untouched import untouched
from adapters.decode.whole_sequence import with_adapters
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.low_rank import LowRank
from configs.errors import UserError
from configs.train import LoraSettings
from data_prep.base_files import BaseFiles

Updates = dict[str, LowRank]


@pytest.fixture
def lm(mono_base) -> LM:
    return load_lm(BaseFiles("debug", None, mono_base))


def updates(lm: LM, seed: int, *, dora: bool = False, scale: float = 0.7) -> Updates:
    """An adapter that has learnt something, on every kind of target."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name in lora.matched_modules(lm, ["attention", "ffn", "text_projection"]):
        linear: Any = lm.get_submodule(name)
        rows, columns = linear.weight.shape
        a, b = torch.randn(3, columns, generator=draw), torch.randn(rows, 3, generator=draw)
        norms = linear.weight.norm(dim=1) * (1 + 0.3 * torch.rand(rows, generator=draw))
        found[name] = LowRank(a * scale, b * scale, alpha=2.0, magnitude=norms if dora else None)
    return found


def play(engine: MusicgenEngine, n_frames: int = 30, direct: Callable[[float], bool] = lambda second: False) -> Tensor:
    text = torch.randn(5, 12, generator=torch.Generator().manual_seed(9))
    return generate(engine, [piece(text, n_frames, 1)], Sampling(3.0, 1.0, 30), at_once=n_frames, direct=direct)[0]


def products(engine: MusicgenEngine, x: Tensor) -> list[Tensor]:
    """What every kind of projection makes of an input."""
    weights = engine.weights
    layer = weights.layers[1]
    assert layer.cross is not None
    wide = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    narrow = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    outputs = [layer.qkv(x), layer.out(x), layer.cross.q(x), layer.cross.kv(x), layer.fc1(x), layer.fc2(wide)]
    return [*outputs, weights.text(narrow)]


@pytest.mark.parametrize("dora", [False, True])
def test_live_equals_merged_at_any_strength(lm: LM, dora: bool) -> None:
    adapters = {"a": updates(lm, 1, dora=dora), "b": updates(lm, 2)}
    live = packed(lm, "plain", adapters, None)
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    for strengths in ({"a": 1.0, "b": 1.0}, {"a": 0.3, "b": -0.5}, {"a": 0.0, "b": 0.0}):
        live.strengths.set(strengths)
        for got, expected in zip(products(live, x), products(packed(lm, "plain", adapters, strengths), x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_several_are_merged_each_against_the_base_and_rounded_once(lm: LM) -> None:
    adapters = {"a": updates(lm, 1, dora=True), "b": updates(lm, 2, dora=True)}
    base = {name: lm.get_parameter(f"{name}.weight").detach().clone() for name in adapters["a"]}
    packing = Packing("plain", torch.device("cpu"), torch.bfloat16, adapters, {"a": 0.6, "b": 0.9})
    made, _ = with_adapters(lm, packing)
    for name, weight in base.items():
        expected = weight + 0.6 * adapters["a"][name].delta(weight) + 0.9 * adapters["b"][name].delta(weight)
        got = made.get_parameter(f"{name}.weight")
        torch.testing.assert_close(got, expected.bfloat16(), rtol=0, atol=0, check_stride=False)


def test_strength_zero_is_the_base(lm: LM) -> None:
    live = packed(lm, "plain", {"a": updates(lm, 1)}, None)
    live.strengths.set({"a": 0.0})
    base = packed(lm, "plain", {}, None)
    torch.testing.assert_close(play(live), play(base))
    live.strengths.set({"a": 1.0})
    assert (play(live) != play(base)).any()


def test_turning_changes_what_comes_after(lm: LM) -> None:
    live = packed(lm, "plain", {"a": updates(lm, 1)}, None)
    live.strengths.set({"a": 0.0})
    base = play(live, 60)
    turned = play(live, 60, direct=lambda second: live.strengths.set({"a": 0.0 if second < 0.6 else 1.0}))
    same = int((turned == base).all(0).long().cumprod(0).sum())
    assert 27 <= same < 60, "frame 30 is at 0.6 s; codebooks that lag behind hear the change first"


def test_borrowed_is_packed(lm: LM) -> None:
    learnt = updates(lm, 3)
    expected = play(packed(lm, "plain", {"a": learnt}, {"a": 1.0}))
    lora.attach_updates(lm, learnt)
    with untouched(lm):
        torch.testing.assert_close(play(MusicgenEngine.borrow(lm, lm.spec)), expected)


def test_a_model_in_training_is_left_as_it_was(lm: LM) -> None:
    settings = LoraSettings.model_validate({"rank": 2, "dropout": 0.5})
    lora.attach(lm, settings)
    lm.train()
    lm.get_submodule("decoder.model.decoder.layers.0").eval()
    flags = {name: module.training for name, module in lm.named_modules()}
    tensors = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    random = torch.get_rng_state()
    with untouched(lm):
        first = play(MusicgenEngine.borrow(lm, lm.spec))
    with untouched(lm):
        torch.testing.assert_close(play(MusicgenEngine.borrow(lm, lm.spec)), first)  # no dropout
    assert {name: module.training for name, module in lm.named_modules()} == flags
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in lm.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)
    assert all(p.grad is None for p in lm.parameters())


def test_a_stranger_is_refused(lm: LM) -> None:
    stranger = {"decoder.model.decoder.layers.7.fc1": LowRank(torch.ones(1, 16), torch.ones(32, 1), 1.0)}
    for merged_at in (None, {"a": 1.0}):
        with pytest.raises(UserError, match=r"layers\.7\.fc1"):
            packed(lm, "plain", {"a": stranger}, merged_at)


def test_an_unknown_name_is_refused(lm: LM) -> None:
    with pytest.raises(UserError, match="'b'"):
        packed(lm, "plain", {"a": updates(lm, 1)}, None).strengths.set({"b": 1.0})


def test_an_embedding_can_be_merged_but_not_turned(lm: LM) -> None:
    name = "decoder.model.decoder.embed_tokens.2"
    update = LowRank(torch.randn(2, 65), torch.randn(16, 2), 2.0, embedding=True)
    merged = packed(lm, "plain", {"a": {name: update}}, {"a": 0.5})
    table: Any = lm.get_submodule(name)
    moved = merged.weights.embeddings[2 * 65 : 3 * 65] - table.weight
    torch.testing.assert_close(moved, 0.5 * update.delta(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="embedding"):
        packed(lm, "plain", {"a": {name: update}}, None)
