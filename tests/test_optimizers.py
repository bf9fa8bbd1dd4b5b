from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fixtures import quick

from configs.errors import UserError
from configs.train import OptimSettings
from data_prep.device import cpu_has_bf16
from finetune import optimizers, precision
from finetune.ema import Ema
from finetune.memory.optimizer_state import _eight_bit
from finetune.precision import settle
from finetune.schedule import factor


def optim(**given) -> OptimSettings:
    return OptimSettings.model_validate(given)


def weights() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    return {
        "m.lora_A.weight": torch.nn.Parameter(torch.randn(64, 80)),
        "m.lora_B.weight": torch.nn.Parameter(torch.randn(80, 64)),
        "m.lora_magnitude_vector": torch.nn.Parameter(torch.rand(80)),
    }


def test_lora_plus_gives_b_its_own_rate_and_magnitudes_no_decay() -> None:
    named = weights()
    found = optimizers.groups(named.items(), 1e-3, 16.0, 0.1)
    assert [(g["lr"], g["weight_decay"]) for g in found] == [(1e-3, 0.1), (1.6e-2, 0.1), (1e-3, 0.0)]
    assert [g["params"][0] is weight for g, weight in zip(found, named.values(), strict=True)] == [True] * 3


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    named = weights()
    optimizer = optimizers.build(named.items(), optim(name=name, lr=None if name == "prodigy" else 0.05), 1.0)
    losses = []
    for _ in range(60):
        loss = (named["m.lora_B.weight"] @ named["m.lora_A.weight"]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_adamw_in_one_kernel_is_adamw() -> None:
    """On a CPU the fused kernel runs; the plain loop over tensors is the reference."""
    found, wanted = (dict(list(weights().items())[:2]) for _ in range(2))  # the magnitudes are never decayed
    settings = optim(lr=0.05, weight_decay=0.1)
    ours = optimizers.build(found.items(), settings, 1.0)
    plain = torch.optim.AdamW(wanted.values(), lr=0.05, betas=settings.betas, weight_decay=0.1)
    for step in range(3):
        for mine, other in zip(found.values(), wanted.values(), strict=True):
            mine.grad = torch.full_like(mine, 0.1 * (step + 1)) * mine.detach()
            other.grad = torch.full_like(other, 0.1 * (step + 1)) * other.detach()
        ours.step()
        plain.step()
    torch.testing.assert_close(found, wanted)


def test_adamw8bit_holds_its_moments_in_8_bits() -> None:
    named = weights()
    optimizer = optimizers.build(named.items(), optim(name="adamw8bit"), 1.0)
    named["m.lora_A.weight"].sum().backward()
    optimizer.step()
    assert optimizer.state[named["m.lora_A.weight"]]["state1"].dtype == torch.uint8


def test_default_rates_and_the_schedule_scale_every_group() -> None:
    assert optimizers.build(weights().items(), optim(name="prodigy"), 1.0).param_groups[0]["lr"] == 1.0
    optimizer = optimizers.build(weights().items(), optim(), 4.0)
    assert optimizers.set_lr(optimizer, 0.5) == pytest.approx(1e-4)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1e-4, 4e-4, 1e-4])
    optimizers.set_lr(optimizer, 1.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([2e-4, 8e-4, 2e-4])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "auto", "optim": {"name": "paged_adamw8bit"}}, "no GPU here"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        optimizers.check(quick(**settings), "cpu")
    optimizers.check(quick(), "cpu")


def test_schedules() -> None:
    cosine = [factor(step, 100, optim(warmup_steps=10)) for step in range(100)]
    assert cosine[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11]) and cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.5) and 0 < cosine[99] < 0.001
    assert all(left > right for left, right in pairwise(cosine[10:]))
    linear = [factor(step, 100, optim(warmup_steps=0, schedule="linear")) for step in range(100)]
    assert linear == pytest.approx([1 - step / 100 for step in range(100)])
    assert factor(99, 100, optim(schedule="constant")) == 1.0


def test_a_short_run_does_not_end_in_warm_up() -> None:
    factors = [factor(step, 5, optim(warmup_steps=1000)) for step in range(5)]
    assert factors[0] == 0.5 and factors[1] == 1.0


def test_ema_is_the_average_it_says() -> None:
    live = {"w": torch.nn.Parameter(torch.zeros(3))}
    ema = Ema(live, 0.9)
    expected = torch.zeros(3)
    for n in range(1, 40):
        live["w"].data = torch.full((3,), float(n))
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    torch.testing.assert_close(ema.average["w"], expected)
    with ema.applied():
        torch.testing.assert_close(live["w"].data, expected)
    torch.testing.assert_close(live["w"].data, torch.full((3,), 39.0))


def test_without_ema_the_live_weights_stay() -> None:
    live = {"w": torch.nn.Parameter(torch.ones(2))}
    ema = Ema(live, 0.0)
    ema.update()
    with ema.applied():
        assert live["w"].data.tolist() == [1.0, 1.0]
    assert ema.average == {}


@pytest.mark.parametrize(
    ("given", "native", "arithmetic", "weights_in", "autocast"),
    [
        ({}, False, "fp32", "fp32", False),
        ({}, True, "bf16", "bf16", False),
        ({"precision": "fp32"}, True, "fp32", "fp32", False),
        ({"precision": "bf16"}, False, "bf16", "bf16", False),
        ({"precision": "bf16", "base_weights": "fp32"}, True, "bf16", "fp32", True),
        ({"base_weights": "bf16"}, False, "bf16", "bf16", False),
        ({"base_weights": "nf4"}, False, "fp32", "nf4", False),
        ({"base_weights": "nf4"}, True, "bf16", "nf4", False),
    ],
)
def test_precision_on_a_cpu(
    given: dict[str, str],
    native: bool,
    arithmetic: str,
    weights_in: str,
    autocast: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: native)
    found = settle(quick(**{"precision": "auto", **given}))
    assert (found.arithmetic, found.base_weights, found.autocast) == (arithmetic, weights_in, autocast)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks Linux what the processor has")
def test_bf16_units_are_seen() -> None:
    """An emulation, as oneDNN has one for every AVX512, does not count."""
    assert cpu_has_bf16() == ("avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"))


def test_impossible_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        settle(quick(device="auto", precision="fp16"))


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit"])
def test_predicted_state_is_what_bitsandbytes_keeps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors in 32 bits, larger ones in 8; the paged one pages only those of 100,000 numbers or more."""
    from bitsandbytes.optim import optimizer as theirs

    sizes = (1000, 4095, 4096, 16 * 1536, 16 * 6144, 99_999, 100_000, 64 * 6144)
    paged: list[int] = []

    def page(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        paged.append(shape[0])
        return torch.zeros(shape, dtype=dtype)

    made = optimizers.build([(f"a{n}", torch.nn.Parameter(torch.zeros(n))) for n in sizes], optim(name=name), 1.0)
    functional: Any = theirs
    monkeypatch.setattr(functional.F, "get_paged", page)
    monkeypatch.setattr(functional.F, "fill", lambda buffer, value: None)
    for size in sizes:
        paged.clear()
        buffers: Any = made
        on_device = 0
        for dtype in [torch.uint8, torch.uint8] if size >= 4096 else [torch.float32, torch.float32]:
            on_meta = torch.empty(size, device="meta")
            held = buffers.get_state_buffer(on_meta, dtype=dtype)
            on_device += 0 if paged else held.nbytes
        scales = 2 * 4 * -(-size // 256) if size >= 4096 else 0
        assert on_device + scales == _eight_bit(size, paged=name.startswith("paged")), size


def test_an_8_bit_step_is_bitsandbytes_own() -> None:
    from bitsandbytes.optim.adamw import AdamW8bit

    torch.manual_seed(0)
    start = torch.randn(5000)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    made = optimizers.build([("x.lora_A.weight", ours)], optim(name="adamw8bit", lr=0.01), 1.0)
    reference = AdamW8bit([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=made.param_groups[0]["weight_decay"])
    for step in range(3):
        gradient = torch.randn(5000, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        made.step()
        reference.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, start)
