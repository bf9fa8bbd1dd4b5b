"""The peak memory of a step done the peer's way, simulated: its real code runs on tensors without data.

The peer trains in mixed precision, and what autocast keeps is part of its bill. The meta device has no autocast, so
fake tensors stand in, which say that they are on the processor and hold nothing.
"""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from adapters.family.memory import StepPlan
from benchmarks.peer import Peer, peer_batch
from finetune.memory.live import LiveBytes
from finetune.memory.simulate import held_tensors


def simulated_peak(plan: StepPlan, codes: torch.Tensor, text_tokens: int, *, checkpointing: bool = True) -> int:
    """Bytes at the highest point of a step in mixed bf16, with AdamW's state and earlier gradients there."""
    with torch.device("meta"):
        peer = Peer(plan, autocast=torch.bfloat16, checkpointing=checkpointing, device="meta")
    peer.device = "cpu"
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(peer.model)
        batch = peer_batch(torch.empty_like(codes), text_tokens, plan)
        learning = [p for p in peer.model.parameters() if p.requires_grad]
        for parameter in learning:
            parameter.grad = torch.zeros_like(parameter)
        moments = [torch.zeros_like(parameter) for parameter in learning for _ in range(2)]
        live = LiveBytes()
        live.hold(*held_tensors(peer.model), *moments, *[p.grad for p in learning if p.grad is not None])
        with live:
            peer.loss(batch).backward()
    return live.peak


def _make_fake(model: nn.Module) -> None:
    """Every weight and buffer anew, on the processor as far as anyone can tell."""
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            new = torch.empty(old.shape, dtype=old.dtype)
            setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
        for name, old in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(old.shape, dtype=old.dtype))
