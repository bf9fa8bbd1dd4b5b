"""Runs of `woodshed train` on the fake card, each kind of adapter and arithmetic; a line of JSON for each.

All learn, save and look at what was held out; some also prove and report the adapter, which takes as long again.
python -m fake_card.training_runs FOLDER, in the environment that `fake_card.driver` makes.
"""

import json
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from training_fixtures import quick, write_dataset

from adapters.family.memory import StepPlan
from adapters.family.musicgen.format import spec_of_sizes
from data_prep.debug_base import write_debug_base
from fake_card.card import FakeCard
from finetune.memory import host_cost
from finetune.memory.predict import predict
from finetune.memory.simulate import simulate
from finetune.train import learn, train

AMPERE, TURING = (8, 6), (7, 5)
RUNS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "bf16, previews": (AMPERE, {"preview": {"every_steps": 1, "duration_sec": 0.2}, "ema_decay": 0.9}),
    "fp16, recomputed": (TURING, {"checkpointing": True}),
    "fp32, pissa": (AMPERE, {"precision": "fp32", "lora": {"init": "pissa"}, "partly_recomputed_layers": 1}),
    "bf16 over fp32, dropout": (AMPERE, {"precision": "bf16", "base_weights": "fp32", "lora": {"dropout": 0.1}}),
    "dora, adamw8bit": (AMPERE, {"lora": {"dora": True}, "optim": {"name": "adamw8bit"}}),
    "prior, fitted": (
        AMPERE,
        {"prior_share": 0.4, "prior_prompts": ["slow piano"], "prior_pieces": 1, "memory": "auto"},
    ),
    "nf4": (AMPERE, {"base_weights": "nf4", "preview": {"every_steps": 1, "duration_sec": 0.2}}),
    "int8, recomputed": (AMPERE, {"base_weights": "int8", "checkpointing": True}),
}
TO_THE_END = ("bf16, previews", "fp16, recomputed", "nf4")
NARROW, WIDE = spec_of_sizes(1024, 3, 16, 4096), spec_of_sizes(1536, 3, 24, 6144)
STEPS = [
    StepPlan(NARROW, batch_size=2, frames=500),
    StepPlan(NARROW, checkpointed=3, batch_size=4),
    StepPlan(WIDE, "fp16", "fp16", checkpointed=1, partly=1, batch_size=2, optimizer="adamw8bit"),
    StepPlan(NARROW, "nf4", checkpointed=1, batch_size=2, frames=1000),
    StepPlan(NARROW, "int8", checkpointed=1, batch_size=2, frames=1000),
]
FIRST = {"steps": 1, "batch_size": 2, "accumulation": 1, "eval": {"every_steps": 1}}


def main(folder: Path) -> None:
    """Every run, also after one that failed. The host's cost is measured once: no card answers sooner for it."""
    host_cost.LAYERS = host_cost.RUNS = 1
    base = write_debug_base(folder / "base", layers=1)
    data = write_dataset(folder / "data", base, train=(30, 41), validation=(37,))
    for name, (capability, more) in RUNS.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        settings = quick(**{"device": "cuda", "precision": "auto", **FIRST, **more})
        card, problem = FakeCard(capability), ""
        try:
            with card, ExitStack() as stack:
                if name in TO_THE_END:
                    train(data, folder / name, settings)
                else:
                    learn(data, folder / name, settings, False, stack)
        except BaseException:
            problem = traceback.format_exc()
        told = card.ledger
        line = {"name": name, "problem": problem, "waits": told.waits, "upcasts": told.upcasts, "copies": told.copies}
        line |= {"captures": told.captures, "replays": told.replays, "kernels": told.kernels.total()}
        with (folder / "runs.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    (folder / "peaks.json").write_text(json.dumps([peaks(plan) for plan in STEPS]))


def peaks(plan: StepPlan) -> tuple[str, int, int]:
    """A step's live bytes at their highest with the kernels that a card takes, and as predicted."""
    with FakeCard(TURING if plan.arithmetic == "fp16" else AMPERE):
        told = f"{plan.spec.hidden}, {plan.weights}, {plan.checkpointed} recomputed, {plan.batch_size} at once"
        return told, simulate(plan, "cuda").peak, predict(plan).peak


if __name__ == "__main__":
    main(Path(sys.argv[1]))
