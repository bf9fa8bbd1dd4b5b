"""What makes our step cheaper than the peer's, moved back one at a time: `train_step --levers`."""

import time
from collections.abc import Callable
from typing import Any

import torch

from adapters.family.lm import LM
from benchmarks import measure
from benchmarks.peer import DECODER_DROPOUT, DROPOUT
from finetune import lean_lora

LEVER_CASES = [
    "ours {}",
    "ours {}, peft's forward",
    "ours {}, adapter dropout",
    "ours {}, frozen dropout",
    "ours {}, cache",
    "ours {} checkpointed",
    "ours {}, twice the batch",
    "ours {}, compiled",
    "ours {} checkpointed, adapter dropout, frozen dropout",
    "peer {}, not checkpointed",
    "peer {}",
]
"""One lever moved back at a time, then several, then the peer. `{}`: bf16 where the device has it, else fp32."""


def per_clip(step: Callable[[], object], device: str) -> Callable[[], object]:
    """A step of twice the batch, as long as it takes for half of it."""

    def half() -> measure.Measured:
        start = measure.clock(device)
        step()
        return measure.Measured((measure.clock(device) - start) / 2)

    return half


def warm_up(step: Callable[[], object], device: str) -> None:
    """Compile, and say how long it took; compilers run in processes of their own, so by the clock on the wall."""
    start = time.perf_counter()
    step()
    measure.clock(device)
    print(f"compiled in {time.perf_counter() - start:.0f} s, a step included", flush=True)


def _frozen_dropout(lm: Any) -> None:
    """As `model.train()` switches it on, with MusicGen's own rate."""
    decoder: Any = lm.decoder.model.decoder
    for module in (decoder, *decoder.layers):
        module.training, module.dropout = True, DECODER_DROPOUT


def _adapter_dropout(lm: LM) -> None:
    for module in lm.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(DROPOUT)  # pyright: ignore


def _cache(lm: Any) -> None:
    """Keys and values are kept for a next step that never comes."""
    lm.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "use_cache": True}), with_kwargs=True
    )


def _compiled(lm: Any) -> None:
    """Layer by layer; each layer is a variant of its own, and past the limit the later ones would run uncompiled."""
    import torch._dynamo

    layers: Any = lm.decoder.model.decoder.layers
    torch._dynamo.config.recompile_limit = 8 * len(layers)
    for layer in layers:
        layer.compile()


LEVERS: dict[str, Callable[[LM], object]] = {
    "peft's forward": lean_lora.remove,
    "adapter dropout": _adapter_dropout,
    "frozen dropout": _frozen_dropout,
    "cache": _cache,
    "compiled": _compiled,
}
