"""Surprise is transformers' own loss, and the gate that faster arithmetic must pass."""

from typing import Any

import pytest
import torch
from transformers import MusicgenForConditionalGeneration

from adapters import pattern
from adapters.decode.arithmetic import choose
from adapters.decode.surprise import surprise
from adapters.decode.weights import Packing, pack
from configs.errors import UserError

CPU = torch.device("cpu")
GATES = [("fp32", 1e-5), ("fp16", 1e-3), ("bf16", 1e-2), ("int8", 2e-2)]
"""Nats that an arithmetic may add to the mean cross-entropy of the debug base, per codebook."""


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_surprise_is_the_models_own_loss(request: pytest.FixtureRequest, kind: str) -> None:
    model: Any = MusicgenForConditionalGeneration.from_pretrained(request.getfixturevalue(f"{kind}_base")).eval()
    weights = pack(model, Packing("plain", CPU, torch.float32))
    shape = weights.shape
    draw = torch.Generator().manual_seed(0)
    codes, text = torch.randint(shape.card, (shape.n_codebooks, 9), generator=draw), torch.randn(5, 12, generator=draw)
    inputs, labels = pattern.inputs_and_labels(codes[None], torch.tensor([9]), shape.special, channels=shape.channels)
    with torch.no_grad():
        states = model.enc_to_dec_proj(text)[None]
        shown = model.decoder(inputs[0], encoder_hidden_states=states).logits  # [K, S, card]
    expected = [row[label != pattern.IGNORE] for row, label in zip(shown, labels[0], strict=True)]
    expected = [
        torch.nn.functional.cross_entropy(row, code, reduction="none")
        for row, code in zip(expected, codes, strict=True)
    ]
    torch.testing.assert_close(surprise(weights, codes, text), torch.stack(expected))


@pytest.mark.parametrize(("precision", "gate"), GATES)
def test_faster_arithmetic_passes_its_gate(mono_base, precision: str, gate: float) -> None:
    try:
        arithmetic = choose(precision, CPU)  # pyright: ignore[reportArgumentType]
    except UserError:
        pytest.skip(f"this CPU has no {precision}")
    model: Any = MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()
    draw = torch.Generator().manual_seed(0)
    codes, text = torch.randint(64, (4, 200), generator=draw), torch.randn(5, 12, generator=draw)
    exact = surprise(pack(model, Packing("plain", CPU, torch.float32)), codes, text)
    added = surprise(pack(model, Packing(arithmetic.kind, CPU, arithmetic.dtype)), codes, text) - exact
    print(f"{precision} adds {float(added.mean()):+.5f} nats, at most {float(added.abs().max()):.4f} to any token")
    assert abs(float(added.mean())) < gate
    assert float(added.abs().mean()) < 10 * gate
