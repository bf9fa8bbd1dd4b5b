"""A training step, the peer's way and ours, side by side: same size, same codes, same rank, same batch.

    uv run python -m benchmarks.train_step --sec 5 --batch 1       # small, on one CPU thread: some minutes
    uv run python -m benchmarks.train_step --levers --layers 6     # what each lever brings, on a CPU: some minutes
    uv run python -m benchmarks.train_step --device cuda --size medium --sec 30
    uv run python -m benchmarks.train_step --layers 2 --rounds 3   # a quick look

Random weights with the true shape serve: time does not depend on values. Prints audio-seconds per second, ratios to the
peer, and the floor: the step's operations over the rate at which this machine multiplies matrices of these shapes. A
case's name says what it is: the way, how the base is held, and after commas the levers that are moved (`LEVERS`).
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.conditions import Conditions
from adapters.family.lm import DTYPES
from adapters.family.memory import StepPlan, memory_of
from adapters.family.memory import trainable as weights_that_learn
from adapters.family.musicgen.format import spec_of_sizes
from adapters.pattern import Delays
from benchmarks import measure
from benchmarks.levers import LEVER_CASES, LEVERS, per_clip, warm_up
from benchmarks.peer import Peer, peer_batch, trainable
from configs.train import OptimSettings
from data_prep.device import cpu_has_bf16
from finetune import optimizers
from finetune.lean_loss import codebook_sums
from finetune.memory.cost import step_flops
from finetune.memory.predict import predict
from finetune.memory.simulate import random_lm

SHAPES = {
    "small": spec_of_sizes(1024, 24, 16, 4096),
    "medium": spec_of_sizes(1536, 48, 24, 6144),
    "large": spec_of_sizes(2048, 48, 32, 8192),
}
TEXT_TOKENS = 24
CPU_CASES = ["peer fp32", "ours fp32", "ours fp32 checkpointed", "ours fp32, peft's forward"]
"""Of a CPU without bf16 units, which would only emulate the peer's mixed precision and our bf16."""
BF16_CPU_CASES = ["peer bf16", "peer fp32", "ours bf16", "ours fp32", "ours bf16 checkpointed"]
GPU_CASES = ["peer bf16", "peer fp16", "ours bf16", "ours bf16 checkpointed", "ours bf16, peft's forward", "ours nf4"]


class Ours:
    """Decoder, lean adapter, lean loss, AdamW: the parts of `finetune.train` that a step is made of."""

    def __init__(self, plan: StepPlan, device: str, levers: Sequence[str] = ()) -> None:
        torch.manual_seed(0)
        self.lm, self.adapter = random_lm(plan, device)
        for lever in levers:
            LEVERS[lever](self.lm)
        self.weights = list(self.adapter.parameters().values())
        self.optimizer = optimizers.build(self.adapter.parameters().items(), OptimSettings(), 1.0)

    def step(self, inputs: Tensor, labels: Tensor, conditions: Conditions) -> None:
        """One optimizer step."""
        sums = codebook_sums(self.lm(inputs, conditions), labels)
        (sums.sum() / labels.numel()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def cases(names: list[str], plan: StepPlan, device: str) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What to time, by name, and how many numbers learn in each. All models are in memory at once."""
    codes = random_codes(plan)
    found: dict[str, Callable[[], object]] = {}
    learning: dict[str, int] = {}
    for name in names:
        print(f"making: {name}", flush=True)
        kind, _, moved = name.partition(", ")
        levers = [lever for lever in moved.split(", ") if lever]
        if kind.startswith("peer"):
            autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind.split()[1])
            peer = Peer(plan, autocast=autocast, checkpointing="not checkpointed" not in levers, device=device)
            theirs = peer_batch(codes, TEXT_TOKENS, plan, device)
            found[name], learning[name] = bound(peer.step, theirs), trainable(peer.model)
            continue
        twice = "twice the batch" in levers
        mine = replace(plan_of(kind, plan), batch_size=plan.batch_size * (2 if twice else 1))
        ours = Ours(mine, device, [lever for lever in levers if lever != "twice the batch"])
        step = bound(ours.step, *step_inputs(mine, device))
        found[name], learning[name] = per_clip(step, device) if twice else step, ours.adapter.n_trainable
        if "compiled" in levers:
            warm_up(step, device)
    return found, learning


def random_codes(plan: StepPlan) -> Tensor:
    """The clips of every case, [B, K, T]."""
    size = (plan.batch_size, plan.spec.n_codebooks, plan.frames)
    return torch.randint(plan.spec.card, size, generator=torch.Generator().manual_seed(0))


def step_inputs(plan: StepPlan, device: str) -> tuple[Tensor, Tensor, Conditions]:
    """The clips as our LM takes them: inputs, labels, conditions."""
    codes, spec = random_codes(plan).to(device), plan.spec
    n_frames = torch.full((plan.batch_size,), plan.frames, device=device)
    inputs, labels = Delays(spec.lags).inputs_and_labels(codes, n_frames, spec.special)
    states = torch.randn(plan.batch_size, TEXT_TOKENS, spec.text_width, device=device)
    return inputs, labels, Conditions.of_text(states, torch.ones(states.shape[:2], dtype=torch.bool, device=device))


def plan_of(name: str, plan: StepPlan) -> StepPlan:
    """The plan that a case's name says, of the peer as if it were ours: `ours nf4 checkpointed`."""
    kind = name.replace(",", " ").split()[1]
    arithmetic = kind if kind in ("fp32", "bf16", "fp16") else plan.arithmetic
    checkpointed = plan.spec.layers if "checkpointed" in name else 0
    return replace(plan, weights=kind, arithmetic=arithmetic, checkpointed=checkpointed)


def bound(function: Callable[..., object], *args: Any) -> Callable[[], object]:
    """The call as a case."""
    return lambda: function(*args)


def floor(plan: StepPlan, device: str) -> dict[str, float]:
    """Seconds of the step's products alone at the rate of its largest ones, or of its bytes at the rate of memory.

    Bytes: the weights once per pass, what the forward pass keeps written and read, the adapter and its optimizer.
    """
    shape, rows, dtype = plan.spec, plan.batch_size * plan.steps, DTYPES[plan.arithmetic]
    up = measure.matmul_flops(rows, shape.hidden, shape.ffn, dtype, device)
    square = measure.matmul_flops(rows, shape.hidden, shape.hidden, dtype, device)
    share_square = 6 * shape.hidden**2 / (6 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)
    rate = 1 / (share_square / square + (1 - share_square) / up)
    flops, memory = step_flops(plan), measure.read_bandwidth(device)
    moved = 2 * memory_of(plan.spec).weight_bytes(plan) + 2 * predict(plan).kept + 40 * weights_that_learn(plan)
    figures = {"flops": flops, "matmul_flops_per_sec": rate, "bytes": moved, "bytes_per_sec": memory}
    return {**figures, "bytes_sec": moved / memory, "sec": max(flops / rate, moved / memory)}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="small")
    parser.add_argument("--layers", type=int, help="fewer layers than the true shape")
    parser.add_argument("--sec", type=float, default=5.0, help="length of each clip")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS)
    parser.add_argument("--minutes", type=float, default=8.0, help="start no further round after this time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cases", nargs="+", help=f"of: {', '.join(dict.fromkeys(CPU_CASES + GPU_CASES))}")
    parser.add_argument("--levers", action="store_true", help="ours with one lever moved back at a time, and the peer")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/train_step.json"))
    args = parser.parse_args()
    if args.device == "cpu":
        measure.one_thread()
    measure.print_environment()
    shape = SHAPES[args.size] if args.layers is None else replace(SHAPES[args.size], layers=args.layers)
    arithmetic = "bf16" if args.device == "cuda" or cpu_has_bf16() else "fp32"
    plan = StepPlan(shape, arithmetic, arithmetic, 0, args.batch, round(args.sec * 50), TEXT_TOKENS)
    on_cpu = BF16_CPU_CASES if arithmetic == "bf16" else CPU_CASES
    names = args.cases or (GPU_CASES if args.device == "cuda" else on_cpu)
    if args.levers:
        names = [case.format(arithmetic) for case in LEVER_CASES]
    timed, learning = cases(names, plan, args.device)
    compared = measure.compare(timed, rounds=args.rounds, device=args.device, minutes=args.minutes)
    kinds = {name: plan_of(name, plan).arithmetic for name in timed}
    limits = {kind: floor(replace(plan, arithmetic=kind, weights=kind), args.device) for kind in set(kinds.values())}
    report(compared, learning, {name: limits[kind] for name, kind in kinds.items()}, args.batch * args.sec)
    facts = {name: vars(args)[name] for name in ("size", "layers", "sec", "batch", "device")}
    measure.write(args.out, "train_step", {**facts, "learning": learning, "floors": limits, "compared": compared})


def report(
    compared: measure.Comparison, learning: dict[str, int], limits: dict[str, dict[str, float]], audio_sec: float
) -> None:
    """The table; `limits` are the floors of the cases."""
    base = next(iter(learning))
    print(f"\nnoise (A/A): {compared.noise:.3f}")
    for limit in {limit["sec"]: limit for limit in limits.values()}.values():
        flops, rate = limit["flops"] / 1e12, limit["matmul_flops_per_sec"] / 1e9
        n_bytes, memory = limit["bytes"] / 1e9, limit["bytes_per_sec"] / 1e9
        print(f"floor without recomputation: {limit['sec']:.2f} s = {flops:.2f} TFLOP at {rate:.0f} GFLOP/s;")
        print(f"its bytes alone: {n_bytes:.1f} GB at {memory:.0f} GB/s, {limit['bytes_sec']:.2f} s")
    print()
    print(f"| case | s a step | audio-s per s | times the speed of {base} | share of the floor | learning |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, count in learning.items():
        median = compared.timings[name].median
        speed = 1 / compared.ratio(name, base)
        said = f"{speed:.2f}" if name == base or compared.differs(name, base) else "not told apart"
        share = limits[name]["sec"] / median
        print(f"| {name} | {median:.2f} | {audio_sec / median:.2f} | {said} | {share:.0%} | {count / 1e6:.1f} M |")


if __name__ == "__main__":
    main()
