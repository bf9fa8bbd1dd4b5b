"""What a condition costs in training: time and memory of a step with it over the same adapter's without.

    python -m benchmarks.play_along.cost --base starter --steps 12

Steps with and without take turns, and processor time is counted, so that other programs on the machine matter little.
Memory is what a step keeps for its backward pass, counted by autograd's own hooks, beside weights and their gradients.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from adapters.added_conditions.attach import silenced
from adapters.conditions import Conditions, batch_conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import TrainableAdapter, attach
from adapters.metadata import AddedInfo
from configs.train import LoraSettings
from data_prep.base_files import resolve_base
from data_prep.lm_spec import TEXT
from finetune import lean_lora
from finetune.lean_loss import codebook_sums


def main() -> None:
    """Print the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--stride", type=int, default=0, help="of a prefix; 0: the condition is added")
    args = parser.parse_args()
    files = resolve_base(args.base)
    lm = load_lm(files, weights="fp32")
    adapter = attach(lm, LoraSettings(rank=16), 0)
    info = AddedInfo(name="context", values="codes", width=lm.n_codebooks, size=64, lookahead_frames=64)
    info = info.model_copy(update={"stride_frames": args.stride})
    adapter.add_conditions({"context": info}, 0)
    lean_lora.install(lm)
    step = step_of(lm, adapter, args.rows, args.frames)
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * args.steps + 2):
        begun = time.process_time()
        step(number % 2 == 0)
        if number > 1:  # the first of each is warm-up
            times[number % 2 == 0].append(time.process_time() - begun)
    kept = {shown: kept_bytes(lambda shown=shown: step(shown)) for shown in (True, False)}
    weights = 8 * sum(parameter.numel() for parameter in adapter.parameters().values())  # value and gradient
    added = 8 * sum(parameter.numel() for module in adapter.added.values() for parameter in module.parameters())
    held = sum(parameter.nbytes for parameter in lm.parameters())
    memory = (held + weights + kept[True]) / (held + weights - added + kept[False])
    print(f"step: {median(times[True]):.3f} s with, {median(times[False]):.3f} s without", end="")
    print(f" ({median(times[True]) / median(times[False]) - 1:+.1%}); memory {memory - 1:+.1%}")


def step_of(lm: LM, adapter: TrainableAdapter, rows: int, frames: int) -> Callable[[bool], None]:
    """One forward and backward pass over random music, with the condition or without."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, lm.card, (rows, lm.n_codebooks, frames), generator=generator)
    inputs, labels = lm.inputs_and_labels(codes, torch.full((rows,), frames))
    context = torch.randint(0, lm.card, (frames + 64, lm.n_codebooks), generator=generator)
    text = torch.randn(12, lm.spec.text_width, generator=generator)
    full = batch_conditions([{TEXT: text, "context": context}] * rows, lm.spec)
    plain = Conditions({TEXT: full[TEXT]})

    def step(shown: bool) -> None:
        if shown:
            codebook_sums(lm(inputs, full), labels).sum().backward()
        else:
            with silenced(lm):
                codebook_sums(lm(inputs, plain), labels).sum().backward()
        for parameter in adapter.parameters().values():
            parameter.grad = None

    return step


def kept_bytes(step: Callable[[], None]) -> int:
    """Bytes that a step keeps for its backward pass, each storage once."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values())


if __name__ == "__main__":
    main()
