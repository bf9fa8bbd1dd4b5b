"""The lean loss against the plain one: same sums, same gradients, less kept."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from adapters.pattern import IGNORE
from finetune import lean_loss, loss
from finetune.memory.live import LiveBytes

B, K, S, CARD = 3, 4, 40, 128


def case(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(B, K, S, CARD, generator=generator).mul(3).to(dtype)
    labels = torch.randint(CARD, (B, K, S), generator=generator)
    labels[:, 1:, :3] = IGNORE
    labels[2] = IGNORE
    labels[0, 0] = torch.arange(S)
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_sums_and_gradients(dtype: torch.dtype):
    weights = torch.tensor([1.0, 0.25, 3.0, 0.0])
    results = []
    for module in (loss, lean_loss):
        logits, labels = case(dtype)
        sums = module.codebook_sums(logits, labels)
        assert sums.dtype == torch.float32
        (sums * weights).sum().backward()
        assert logits.grad is not None and logits.grad.dtype == dtype
        results.append((sums.detach(), logits.grad.float()))
    (want, want_grad), (got, got_grad) = results
    assert_close(got, want, rtol=1e-6, atol=1e-4)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert_close(got_grad, want_grad, rtol=tolerance, atol=tolerance)
    assert not got_grad[2].any()


def test_the_loss_of_bf16_logits_is_computed_in_fp32():
    logits, labels = case(torch.bfloat16)
    logits = logits.detach()
    exact = loss.codebook_sums(logits.double().float(), labels)
    assert_close(lean_loss.codebook_sums(logits, labels), exact, rtol=1e-6, atol=1e-4)
    rounded = torch.nn.functional.cross_entropy(
        logits.flatten(0, 2), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    assert abs(float(rounded) - float(exact.sum())) > 1e-3 * float(exact.sum())  # what bf16 would have made of it


def test_keeps_the_logits_only():
    peaks = []
    for module in (loss, lean_loss):
        logits, labels = case(torch.bfloat16)
        live = LiveBytes()
        live.hold(logits, labels)
        before = live.live
        with live:
            sums = module.codebook_sums(logits, labels)
            kept = live.live - before
            sums.sum().backward()
        peaks.append((kept, live.peak - before))
    (plain_kept, plain_peak), (kept, peak) = peaks
    assert kept < 4096 < plain_kept
    assert peak < 0.6 * plain_peak
