"""A training step on the meta device: the real decoder, adapter and loss run, and every byte is counted; none is used.

The reference for `finetune.memory.predict`, and slower than it by seconds. What it cannot run on the meta device it
stands in for: quantised layers by ones that hold as many bytes and dequantise into as large a buffer, the optimizer's
state by tensors of its size.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.added_conditions.attach import attach as attach_conditions
from adapters.added_conditions.frames import build
from adapters.conditions import Condition, Conditions
from adapters.family.lm import DTYPES, LM
from adapters.family.memory import StepPlan, packed_bytes
from adapters.family.port import family_named
from adapters.family.recompute import enable_checkpointing
from adapters.lora import TrainableAdapter, attach
from adapters.metadata import AddedInfo
from adapters.quantize import quantized_linear
from adapters.whole_weights.layers import install
from configs.train import LoraSettings
from data_prep.condition_sources.added import added_kinds
from data_prep.context_names import CONTEXT
from data_prep.lm_spec import TEXT, ConditionKind
from finetune import lean_lora
from finetune.lean_loss import codebook_sums
from finetune.memory.live import LiveBytes, fused_attention
from finetune.memory.optimizer_state import state_bytes


@dataclass(frozen=True)
class Simulated:
    """Bytes. `held` is there all the time (weights, adapter, gradients, optimizer); `kept` is what the forward adds."""

    held: int
    kept: int
    peak: int


def simulate(plan: StepPlan, device: str = "meta", *, lean: bool = True) -> Simulated:
    """Forward, loss and backward of one micro-batch, with the gradients of earlier ones already there.

    On another device than `meta` the same really runs, on random weights: slow, and the proof of the simulation.
    Without `lean` the adapter's layers run peft's own forward.
    """
    lm, adapter = random_lm(plan, device)
    if not lean:
        lean_lora.remove(lm)
    parameters = list(adapter.parameters().values())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    state = torch.empty(state_bytes(plan), dtype=torch.uint8, device=device)
    live = LiveBytes()
    live.hold(*held_tensors(lm), state, *[p.grad for p in parameters if p.grad is not None])
    held = live.live
    with live, fused_attention() if device == "meta" else nullcontext():
        inputs, labels, conditions = batch(plan, device)
        sums = codebook_sums(lm(inputs, conditions), labels)
        kept = live.live - held
        sums.sum().backward()
    return Simulated(held, kept, live.peak)


def held_tensors(lm: nn.Module) -> list[Tensor]:
    """Weights and buffers, and what bitsandbytes keeps beside its weights."""
    found = [*lm.parameters(), *lm.buffers()]
    states = [getattr(parameter, "quant_state", None) for parameter in lm.parameters()]
    for state in states:
        if state is not None:
            nested = state.state2.absmax if state.nested else state.absmax
            found += [state.absmax, nested]
    scales = [getattr(parameter, "SCB", None) for parameter in lm.parameters()]
    return found + [scale for scale in scales if isinstance(scale, Tensor)]


def random_lm(plan: StepPlan, device: str = "meta") -> tuple[LM, TrainableAdapter]:
    """The decoder with its adapter, lean and checkpointed as the plan says, with random weights or none."""
    arithmetic = DTYPES[plan.arithmetic]
    with torch.device(device):
        lm = family_named(plan.spec.family).from_spec(plan.spec).to(DTYPES.get(plan.weights, arithmetic))
        _install_whole(lm, plan, arithmetic, device)
        _put_in_front(lm, plan)
        lm.is_loaded_in_8bit = plan.weights == "int8" and device != "meta"
        lm.is_loaded_in_4bit = plan.weights == "nf4" and device != "meta"
        if plan.weights in ("int8", "nf4"):
            _quantise(lm, plan.weights, arithmetic, device)
    with torch.device(device) if device == "meta" else nullcontext():  # its first values are drawn on the CPU
        adapter = attach(lm, LoraSettings(rank=plan.rank, targets=list(plan.targets)))
    lean_lora.install(lm)
    enable_checkpointing(lm, plan.checkpointed, plan.partly)
    return lm.train(), adapter


def _install_whole(lm: LM, plan: StepPlan, arithmetic: torch.dtype, device: str) -> None:
    """Layers that learn whole, in a base that was moved."""
    spec, family = plan.spec, family_named(plan.spec.family)
    shapes = family.whole_shapes(
        spec.learns_whole,
        n_codebooks=spec.n_codebooks,
        card=spec.card,
        hidden=spec.hidden,
        text_width=spec.text_width,
    )
    install(lm, {name: torch.zeros(shape) for name, shape in shapes.items()}, torch.device(device), arithmetic)


def _put_in_front(lm: LM, plan: StepPlan) -> None:
    """A context track as a prefix of so many entries."""
    if not plan.in_front:
        return
    stride = -(-plan.frames // plan.in_front)
    info = AddedInfo(name=CONTEXT, values="codes", width=lm.n_codebooks, size=4, stride_frames=stride)
    attach_conditions(lm, {CONTEXT: build(info, lm.n_codebooks, lm.card, lm.spec.hidden)})


def batch(plan: StepPlan, device: str) -> tuple[Tensor, Tensor, Conditions]:
    """Codes [B, K, S] twice, as input and as labels, a text of which one token is masked, all else. All zeros."""
    spec, B = plan.spec, plan.batch_size
    codes = torch.zeros(B, spec.n_codebooks, plan.steps, dtype=torch.int64, device=device)
    others = {kind.name: _whole(kind, plan, device) for kind in spec.conditions}
    if plan.in_front:
        others[CONTEXT] = _whole(added_kinds(spec)[CONTEXT], plan, device)
    if spec.condition(TEXT).n_entries is None:
        states = torch.zeros(B, plan.text_tokens, spec.text_width, device=device)
        mask = torch.ones(B, plan.text_tokens, dtype=torch.bool, device=device)
        mask[:, -1] = False
        others[TEXT] = Condition(states, mask)
    return codes, torch.zeros_like(codes), Conditions(others)


def _whole(kind: ConditionKind, plan: StepPlan, device: str) -> Condition:
    """As many entries as the clip can have."""
    n = kind.n_entries or (round(plan.frames / plan.spec.frame_rate * (kind.rate_hz or plan.spec.frame_rate)))
    dtype = torch.float32 if kind.values == "floats" else torch.int64
    values = torch.zeros(plan.batch_size, n, kind.width, dtype=dtype, device=device)
    return Condition(values, torch.ones(plan.batch_size, n, dtype=torch.bool, device=device))


class _PackedLinear(nn.Linear):
    """Stands in for bitsandbytes' layer: its bytes when held, a weight in full when used, forward and backward."""

    def __init__(self, plain: nn.Linear, packed_bytes: int, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.arithmetic = dtype
        held = torch.empty(packed_bytes, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(held, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply by a weight that is made for the purpose."""
        return _PackedProduct.apply(input, self)  # pyright: ignore[reportReturnType]

    def dequantised(self) -> Tensor:
        """A buffer of the whole weight."""
        return torch.empty(self.out_features, self.in_features, dtype=self.arithmetic, device="meta")


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _PackedLinear) -> Tensor:
        ctx.layer = layer
        return x @ layer.dequantised().t()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.dequantised(), None


def _quantise(lm: LM, weights: Literal["int8", "nf4"], dtype: torch.dtype, device: str) -> None:
    """Swap the linear layers of the decoder's layers: for bitsandbytes' own, or for their stand-ins."""
    for name, module in list(lm.named_modules()):
        if not isinstance(module, nn.Linear) or not family_named(lm.spec.family).is_quantised(f"{name}.weight"):
            continue
        if device == "meta":
            size = module.in_features * module.out_features
            quantised = _PackedLinear(module, packed_bytes(size, module.out_features, weights), dtype)
        else:
            quantised = quantized_linear(module.weight.float(), weights, torch.device(device), dtype)
        parent, _, leaf = name.rpartition(".")
        setattr(lm.get_submodule(parent), leaf, quantised)
