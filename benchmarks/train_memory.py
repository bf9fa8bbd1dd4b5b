"""Peak memory of a training step: predicted, simulated, and really used, the peer's way beside ours.

    uv run python -m benchmarks.train_memory                   # predicted peaks of all sizes, and a proof on a CPU
    uv run python -m benchmarks.train_memory --simulate        # the same peaks on the meta device, and the peer's
    uv run python -m benchmarks.train_memory --device cuda     # real steps: torch.cuda.max_memory_reserved
    uv run python -m benchmarks.train_memory --device cuda --sizes medium --cap 6 8 10      # under hard caps, GiB

A CPU cannot hold the large ones, so there the proof is a narrower decoder of true layers: the bytes of its live
tensors, counted, and what the process grew by.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from adapters.family.memory import StepPlan
from benchmarks import measure
from benchmarks.peer import Peer, peer_batch
from benchmarks.peer_memory import simulated_peak
from benchmarks.train_step import SHAPES, TEXT_TOKENS, Ours, random_codes, step_inputs
from data_prep.device import cpu_has_bf16
from finetune.memory.auto import Cap, limit_process
from finetune.memory.dry import measure as measure_step
from finetune.memory.fit import choose, options
from finetune.memory.live import LiveBytes
from finetune.memory.predict import GIB, predict
from finetune.memory.simulate import held_tensors, simulate

MIB = 2**20
BATCHES = {"small": (1, 8), "medium": (1, 2, 8), "large": (1, 2, 8)}
KINDS = {
    "bf16, all recomputed": ("bf16", True),
    "bf16, none recomputed": ("bf16", False),
    "nf4, all recomputed": ("nf4", True),
}
PEER, PEFT = "peer, all recomputed", "bf16, peft's forward, all recomputed"
ESTIMATED = {
    PEER: (2.8, 5.3, 8.7, 9.5, 13.9, 14.5, 15.4, 21.3),
    PEFT: (1.2, 3.2, 4.3, 4.9, 8.1, 7.3, 8.0, 12.3),
    "bf16, all recomputed": (1.1, 2.2, 4.1, 4.5, 6.5, 7.0, 7.4, 10.2),
    "bf16, none recomputed": (2.6, 14, 8.7, 13.5, 42, 13, 19.5, 58),
    "nf4, all recomputed": (0.5, 1.6, 1.7, 2.0, 4.1, 2.7, 3.1, 5.9),
}
"""GiB, what these steps were estimated to need before any of this was written; in the order of `BATCHES`."""
PROOF = {"hidden": 512, "heads": 8, "ffn": 2048, "layers": 12}


def plans(sizes: list[str]) -> Iterator[tuple[str, StepPlan]]:
    """Every row of the table: 30 s clips, rank 16 on attention, feed-forward and text projection."""
    for kind, (weights, recompute) in KINDS.items():
        for step, plan in steps(sizes):
            layers = plan.spec.layers if recompute else 0
            yield f"{step}, {kind}", replace(plan, weights=weights, checkpointed=layers)


def steps(sizes: list[str]) -> Iterator[tuple[str, StepPlan]]:
    """Sizes and batches, in bf16 with everything recomputed."""
    for size in sizes:
        for batch in BATCHES[size]:
            shape = SHAPES[size]
            yield f"{size} B{batch}", StepPlan(shape, "bf16", "bf16", shape.layers, batch, 1500, TEXT_TOKENS)


def estimated(step: str) -> float:
    """What a row of the table was estimated to need, GiB."""
    place, kind = step.split(", ", 1)
    names = [f"{size} B{batch}" for size, batches in BATCHES.items() for batch in batches]
    return ESTIMATED[kind][names.index(place)]


def table(sizes: list[str], simulated: bool) -> list[dict]:
    """Predicted and, where asked for, simulated peaks; simulated too are peft's forward and the peer's way."""
    print("| step | estimated GiB | predicted GiB | reserved on a GPU, predicted GiB | simulated GiB |")
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for name, plan in plans(sizes):
        memory = predict(plan)
        rows.append(row(name, memory.peak, memory.reserved, simulate(plan).peak if simulated else None))
    for step, plan in steps(sizes) if simulated else ():
        rows.append(row(f"{step}, {PEFT}", None, None, simulate(plan, lean=False).peak))
        rows.append(row(f"{step}, {PEER}", None, None, simulated_peak(plan, random_codes(plan), TEXT_TOKENS)))
    return rows


def row(step: str, predicted: int | None, reserved: int | None, simulated: int | None) -> dict:
    """Print a row and return its figures, bytes."""
    shown = ["" if n_bytes is None else f"{n_bytes / GIB:.2f}" for n_bytes in (predicted, reserved, simulated)]
    print(f"| {step} | {estimated(step):g} | {' | '.join(shown)} |", flush=True)
    return {"step": step, "predicted": predicted, "reserved": reserved, "simulated": simulated}


def proof() -> list[dict]:
    """Real steps on a CPU, in the arithmetic that training chooses there: prediction, live tensors, the process."""
    arithmetic = cpu_arithmetic()
    layers = PROOF["layers"]
    kinds = [(arithmetic, layers), (arithmetic, layers // 2), (arithmetic, 0), ("int8", layers), ("nf4", layers)]
    print(f"\n| real step on a CPU, {arithmetic} | predicted MiB | live tensors MiB | the process grew by MiB |")
    print("| --- | --- | --- | --- |")
    rows = []
    for weights, checkpointed in kinds:
        name, predicted = (
            f"ours {weights}, {checkpointed} of {layers}",
            predict(proof_plan(weights, checkpointed)).peak,
        )
        rows.append({"step": name, "predicted": predicted, **in_own_process("ours", weights, checkpointed)})
    rows.append({"step": "peer, all recomputed", "predicted": None, **in_own_process("peer", "fp32", layers)})
    for row in rows:
        predicted = "" if row["predicted"] is None else f"{row['predicted'] / MIB:.0f}"
        print(f"| {row['step']} | {predicted} | {row['live'] / MIB:.0f} | {row['grew'] / MIB:.0f} |")
    return rows


def cpu_arithmetic() -> Literal["fp32", "bf16"]:
    """What training on this processor computes in."""
    return "bf16" if cpu_has_bf16() else "fp32"


def proof_plan(weights: Any, checkpointed: int) -> StepPlan:
    """A narrower decoder of true layers, two clips of 10 s."""
    shape = replace(SHAPES["small"], **PROOF)
    return StepPlan(shape, weights, cpu_arithmetic(), checkpointed, 2, 500, TEXT_TOKENS)


def in_own_process(way: str, weights: str, checkpointed: int) -> dict:
    """What `measure_here` finds in a fresh process."""
    words = [sys.executable, "-m", "benchmarks.train_memory", "--one", way, weights, str(checkpointed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    live, grew = done.stdout.split()[-2:]
    return {"live": int(live), "grew": int(grew)}


def measure_here(way: str, weights: str, checkpointed: int) -> tuple[int, int]:
    """Bytes of live tensors at the peak of a step, and what the process grew by for two of them, imports left out."""
    torch.set_num_threads(1)
    plan = proof_plan(weights, checkpointed)
    tiny = replace(plan, spec=replace(plan.spec, hidden=64, heads=1, ffn=64, layers=1), frames=10, checkpointed=0)
    counted(*learner(way, tiny))  # imports what is needed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model, optimizer, step = learner(way, plan)
    step()  # makes the optimizer's state
    grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return counted(model, optimizer, step), grew * 1024


def learner(way: str, plan: StepPlan) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """Model, optimizer and step."""
    if way == "peer":
        mixed = torch.bfloat16 if plan.arithmetic == "bf16" else None
        peer = Peer(plan, autocast=mixed, checkpointing=True)
        batch = peer_batch(random_codes(plan), TEXT_TOKENS, plan)
        return peer.model, peer.optimizer, lambda: peer.step(batch)
    ours, inputs = Ours(plan, "cpu"), step_inputs(plan, "cpu")
    return ours.lm, ours.optimizer, lambda: ours.step(*inputs)


def counted(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], None]) -> int:
    """Bytes of live tensors at the peak of a step."""
    live = LiveBytes()
    live.hold(*held_tensors(model))
    live.hold(*[t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)])
    with live:
        step()
    return live.peak


def on_gpu(sizes: list[str], caps: list[float]) -> list[dict]:
    """Real steps at true sizes; with caps, the settings that the fit chooses under each."""
    rows = []
    print("| step | predicted reserved GiB | max_memory_reserved GiB |\n| --- | --- | --- |")
    for name, plan, cap in cases_on_gpu(sizes, caps):
        torch.cuda.empty_cache()
        limit_process(cap or Cap(torch.cuda.get_device_properties(0).total_memory))
        ours, inputs = Ours(plan, "cuda"), step_inputs(plan, "cuda")
        found = measure_step(lambda ours=ours, inputs=inputs: ours.step(*inputs), ours.lm, ours.weights)
        peak = None if found is None else found.peak
        shown = "out of memory" if peak is None else f"{peak / GIB:.2f}"
        print(f"| {name} | {predict(plan).reserved / GIB:.2f} | {shown} |", flush=True)
        rows.append({"step": name, "reserved": predict(plan).reserved, "measured": peak})
        del ours, inputs
    return rows


def cases_on_gpu(sizes: list[str], caps: list[float]) -> Iterator[tuple[str, StepPlan, Cap | None]]:
    """Name, plan and cap of every step."""
    if not caps:
        yield from ((name, plan, None) for name, plan in plans(sizes))
    for size in sizes if caps else ():
        for gib in caps:
            cap = Cap(round(gib * GIB))
            plan = StepPlan(SHAPES[size], "bf16", "bf16", 0, 2, 1500, TEXT_TOKENS)
            yield f"{size} under {gib:g} GiB", choose(options(plan, 8, cap, ["bf16", "nf4"]), cap).plan, cap


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--simulate", action="store_true", help="run every row without data too: minutes")
    parser.add_argument("--cap", nargs="+", type=float, default=[])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/train_memory.json"))
    args = parser.parse_args()
    if args.one:
        print(*measure_here(args.one[0], args.one[1], int(args.one[2])))
        return
    measure.print_environment()
    if args.device == "cuda":
        results = {"gpu": on_gpu(args.sizes, args.cap)}
    else:
        results = {"table": table(args.sizes, args.simulate), "proof": proof()}
    measure.write(args.out, "train_memory", results)


if __name__ == "__main__":
    main()
