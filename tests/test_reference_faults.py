"""Mistakes of the usual way to train MusicGen, made here on purpose: each is a number that ours must not come to.

transformers 5 under its Trainer sums micro-batch means without dividing by their number; a bf16 model's own loss is
computed in bf16; labels cut to T steps lose the last K - 1 of the lagging codebooks; `model.train()` switches the
frozen decoder's dropout on.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.testing import assert_close
from training_fixtures import quick, write_dataset
from transformers import MusicgenConfig

from adapters.conditions import Conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import attach
from configs.train import LoraSettings
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from finetune import lean_lora, loss
from finetune.batches import Stream, clips_of
from finetune.lean_loss import codebook_sums
from finetune.precision import Precision
from finetune.processes import start_processes
from finetune.step import Learner, accumulate

N_FRAMES = 40


def small_lm(base: Path, dtype: str = "fp32") -> tuple[LM, list[torch.nn.Parameter]]:
    lm = load_lm(resolve_base(str(base)), weights=dtype)  # pyright: ignore[reportArgumentType]
    parameters = attach(lm, LoraSettings(rank=2)).parameters()
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return lm, list(parameters.values())


def one_clip(lm: LM, seed: int = 1) -> tuple[Tensor, Tensor, Conditions]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(lm.card, (1, lm.n_codebooks, N_FRAMES), generator=generator)
    inputs, labels = lm.inputs_and_labels(codes, torch.tensor([N_FRAMES]))
    states = torch.randn(1, 5, lm.spec.text_width, generator=generator)
    return inputs, labels, Conditions.of_text(states, torch.ones(1, 5, dtype=torch.bool))


def transformers_loss(lm: Any, inputs: Tensor, labels: Tensor, conditions: Conditions) -> Tensor:
    """The decoder's own loss, which takes labels [B, S, K] and shifts them itself."""
    states, attend = lm.project(conditions)
    heard = inputs.reshape(-1, inputs.shape[2])
    decoder: Any = lm.decoder
    out = decoder(
        input_ids=heard,
        encoder_hidden_states=states,
        encoder_attention_mask=attend,
        labels=labels.transpose(1, 2),
        use_cache=False,
    )
    return out.loss


def test_accumulation_divides_and_the_usual_way_would_be_four_times_as_much(mono_base: Path, tmp_path: Path):
    data = write_dataset(tmp_path / "data", mono_base, train=(N_FRAMES,) * 4)
    norms = {}
    for batch_size in (4, 1):
        lm, weights = small_lm(mono_base)
        accelerator = start_processes(Precision("cpu", "fp32", "fp32"))
        settings = quick(batch_size=batch_size, accumulation=4 // batch_size, optim={"max_grad_norm": 0.0})
        learner = Learner(lm, lm, weights, PreparedDataset(data), accelerator, settings, N_FRAMES)
        stream = Stream(clips_of(PreparedDataset(data), "train"), seed=0, max_frames=N_FRAMES, condition_dropout=0.0)
        found = accumulate(learner, stream.step(0, 4), 0, lambda: False)
        assert found is not None
        norms[batch_size] = found.norm
        AcceleratorState._reset_state(reset_partial_state=True)
    assert norms[1] == pytest.approx(norms[4], rel=1e-4)

    lm, weights = small_lm(mono_base)
    for _ in range(4):
        transformers_loss(lm, *one_clip(lm)).backward()
    summed = [weight.grad.clone() for weight in weights if weight.grad is not None]
    lm.zero_grad()
    transformers_loss(lm, *one_clip(lm)).backward()
    once = [weight.grad for weight in weights if weight.grad is not None]
    assert_close(summed, [4 * grad for grad in once], rtol=1e-4, atol=1e-7)  # nothing in there divides


def test_the_loss_of_a_bf16_model_is_fp32_and_its_own_is_not(mono_base: Path):
    lm, _ = small_lm(mono_base, "bf16")
    inputs, labels, conditions = one_clip(lm)
    with torch.no_grad():
        logits = lm(inputs, conditions)
        ours = float(codebook_sums(logits, labels).sum()) / int((labels >= 0).sum())
        theirs = float(transformers_loss(lm, inputs, labels, conditions))
    exact = float(loss.codebook_sums(logits.double().float(), labels).sum()) / int((labels >= 0).sum())
    assert logits.dtype == torch.bfloat16
    assert ours == pytest.approx(exact, rel=1e-6)
    assert abs(theirs - exact) > 1e-4 * exact


@pytest.mark.parametrize("base", ["mono_base", "stereo_base"])
def test_the_last_steps_of_lagging_codebooks_are_learnt(base: str, request: pytest.FixtureRequest):
    lm, _ = small_lm(request.getfixturevalue(base))
    inputs, labels, _ = one_clip(lm)
    assert int((labels >= 0).sum()) == lm.n_codebooks * N_FRAMES  # every frame of every codebook
    cut = int((labels[..., :N_FRAMES] >= 0).sum())
    lost = sum(range(lm.n_codebooks // lm.spec.channels)) * lm.spec.channels
    assert lost > 0 and cut == lm.n_codebooks * N_FRAMES - lost  # what labels of T steps would leave out
    assert inputs.shape == labels.shape


def test_frozen_parts_have_no_dropout_while_training(mono_base: Path):
    """The base's own configuration asks for it; the adapter's dropout is another matter and stays on."""
    lm, _ = small_lm(mono_base)
    assert MusicgenConfig.from_pretrained(mono_base).decoder.dropout > 0  # pyright: ignore
    lean_lora.install(lm)
    lm.train()
    inputs, _, conditions = one_clip(lm)
    torch.manual_seed(0)
    first = lm(inputs, conditions)
    assert_close(lm(inputs, conditions), first, rtol=0, atol=0)

    plain: Any = lm.decoder
    for module in plain.modules():
        module.training = True
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.1
    assert not torch.equal(lm(inputs, conditions), first)  # what `model.train()` on the full model would do
