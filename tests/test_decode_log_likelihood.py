"""Token log-likelihoods are transformers' own loss, and the gate that faster arithmetic must pass."""

from typing import Any

import pytest
import torch
from decode_fixtures import CPU, packed, text_conditions
from training_fixtures import write_dataset
from transformers import MusicgenForConditionalGeneration

from adapters.decode.arithmetic import choose
from adapters.decode.gate import added, losses
from adapters.family.load import load_lm
from adapters.pattern import IGNORE
from benchmarks import precision
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset

GATES = [("fp32", 1e-5), ("fp16", 1e-3), ("bf16", 1e-2), ("int8", 2e-2)]
"""Nats that an arithmetic may add to the mean cross-entropy of the debug base, per codebook."""


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_log_likelihood_is_the_models_own_loss(request: pytest.FixtureRequest, kind: str) -> None:
    model: Any = MusicgenForConditionalGeneration.from_pretrained(request.getfixturevalue(f"{kind}_base")).eval()
    engine = packed(model)
    spec = engine.spec
    draw = torch.Generator().manual_seed(0)
    codes, text = torch.randint(spec.card, (spec.n_codebooks, 9), generator=draw), torch.randn(5, 12, generator=draw)
    inputs, labels = engine.pattern.inputs_and_labels(codes[None], torch.tensor([9]), spec.special)
    with torch.no_grad():
        states = model.enc_to_dec_proj(text)[None]
        shown = model.decoder(inputs[0], encoder_hidden_states=states).logits  # [K, S, card]
    expected = [row[label != IGNORE] for row, label in zip(shown, labels[0], strict=True)]
    expected = [
        torch.nn.functional.cross_entropy(row, code, reduction="none")
        for row, code in zip(expected, codes, strict=True)
    ]
    torch.testing.assert_close(-engine.log_likelihoods(codes, text_conditions([text])), torch.stack(expected))


@pytest.mark.parametrize(("name", "gate"), GATES)
def test_faster_arithmetic_passes_its_gate(mono_base, name: str, gate: float) -> None:
    try:
        arithmetic = choose(name, CPU)  # pyright: ignore[reportArgumentType]
    except UserError:
        pytest.skip(f"this CPU has no {name}")
    model: Any = MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()
    draw = torch.Generator().manual_seed(0)
    codes, text = torch.randint(64, (4, 200), generator=draw), torch.randn(5, 12, generator=draw)
    told = text_conditions([text])
    exact = packed(model).log_likelihoods(codes, told)
    added = exact - packed(model, arithmetic.kind, dtype=arithmetic.dtype).log_likelihoods(codes, told)
    print(f"{name} adds {float(added.mean()):+.5f} nats, at most {float(added.abs().max()):.4f} to any token")
    assert abs(float(added.mean())) < gate
    assert float(added.abs().mean()) < 10 * gate


def test_the_gates_on_held_out_clips(mono_base, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """All arithmetic of this machine, nf4 too, is printed and passes; weights that were packed wrongly do not."""
    dataset = PreparedDataset(write_dataset(tmp_path / "data", mono_base))
    files = resolve_base(str(mono_base))
    clips = precision.held_out(dataset, 2, 20)
    assert [codes.shape for codes, _ in clips] == [(4, 20), (4, 20)]
    assert precision.run_gates(files, clips, CPU)
    said = capsys.readouterr().out
    assert all(f"\n{name}" in said for name in ("fp16", "int8", "bnb-int8", "nf4")) and "FAILS" not in said
    lm: Any = load_lm(files)
    exact = losses(packed(lm), clips)
    with torch.no_grad():
        lm.decoder.model.decoder.layers[0].fc2.weight *= -1
    wrong = added("nf4", exact, losses(packed(lm), clips))
    assert not wrong.passes and "FAILS" in str(wrong)
    assert not added("int8", exact, exact * float("nan")).passes
