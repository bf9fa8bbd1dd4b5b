"""Optimizers over the adapter's weights, with LoRA+'s faster B as a parameter group of its own."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterable
from typing import Any

import torch

from configs.errors import UserError
from configs.train import OptimSettings, TrainSettings

DEFAULT_LR = {"adamw": 2e-4, "adamw8bit": 2e-4, "paged_adamw8bit": 2e-4, "prodigy": 1.0}
PEAK = "peak_lr"
"""Key under which each parameter group remembers the learning rate that the schedule scales."""


def check(settings: TrainSettings, device: str) -> None:
    """Refuse early, before a model is loaded, what cannot work.

    Raises:
        UserError: the combination is impossible on this device, or in itself.
    """
    name = settings.optim.name
    if name == "paged_adamw8bit" and device == "cpu":
        raise UserError(
            "The paged optimizer moves its state between GPU and main memory; there is no GPU here.",
            where="optim.name: paged_adamw8bit",
            fix="Use `--optim.name adamw8bit` or adamw.",
        )


def build(
    named: Iterable[tuple[str, torch.nn.Parameter]], optim: OptimSettings, plus_ratio: float
) -> torch.optim.Optimizer:
    """The optimizer over these (name, weight) pairs; every group knows its peak learning rate (key `PEAK`)."""
    lr = optim.lr if optim.lr is not None else DEFAULT_LR[optim.name]
    return _create(optim.name, groups(named, lr, plus_ratio, optim.weight_decay), optim.betas)


def groups(
    named: Iterable[tuple[str, torch.nn.Parameter]], lr: float, plus_ratio: float, weight_decay: float
) -> list[dict]:
    """Three groups at most: A, B (`plus_ratio` times the rate, LoRA+), and DoRA's magnitudes (never decayed)."""
    sorted_out: dict[str, list[torch.nn.Parameter]] = {"A": [], "B": [], "magnitude": []}
    for name, weight in named:
        kind = "B" if ".lora_B." in name else "magnitude" if ".lora_magnitude_vector" in name else "A"
        sorted_out[kind].append(weight)
    rate = {"A": lr, "B": lr * plus_ratio, "magnitude": lr}
    decay = {"A": weight_decay, "B": weight_decay, "magnitude": 0.0}
    return [
        {"params": weights, "lr": rate[kind], PEAK: rate[kind], "weight_decay": decay[kind]}
        for kind, weights in sorted_out.items()
        if weights
    ]


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's peak learning rate; returns that of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group[PEAK] * factor
    return optimizer.param_groups[0]["lr"]


def _create(name: str, param_groups: list[dict], betas: tuple[float, float]) -> torch.optim.Optimizer:
    if name == "adamw":
        on_cpu = all(weight.device.type == "cpu" for group in param_groups for weight in group["params"])
        return torch.optim.AdamW(param_groups, betas=betas, fused=on_cpu or None)  # 10 ms instead of 28 for 10 M
    if name == "prodigy":
        return _prodigy(param_groups, betas)
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    kinds = {"adamw8bit": AdamW8bit, "paged_adamw8bit": PagedAdamW8bit}
    return _waiting_once(kinds[name])(param_groups, betas=betas)


@functools.cache
def _waiting_once(kind: Any) -> Any:
    """A bitsandbytes optimizer whose step waits for the GPU once if its state is paged, else never.

    Its own waits after every tensor, several hundred times a step.
    """

    class WaitingOnce(kind):
        @torch.no_grad()
        def step(self, closure: Callable[[], Any] | None = None) -> None:
            assert closure is None
            if not self.initialized:
                self.check_overrides()
                self.to_gpu()  # state that was loaded
                self.initialized = True
            for number, group in enumerate(self.param_groups):
                for place, weight in enumerate(group["params"]):
                    if weight.grad is None:
                        continue
                    if not self.state[weight]:
                        self.init_state(group, weight, number, place)
                    self.prefetch_state(weight)
                    self.update_step(group, weight, number, place)
            if self.is_paged and torch.cuda.is_available():
                torch.cuda.synchronize()

    return WaitingOnce


def _prodigy(param_groups: list[dict], betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Prodigy (Mishchenko and Defazio 2023, arXiv:2306.06101), its estimate guarded against warm-up."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
        return Prodigy(param_groups, betas=betas, use_bias_correction=True, safeguard_warmup=True)
