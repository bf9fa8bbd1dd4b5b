"""Whole runs of `woodshed train` on the fake card, each kind of adapter and arithmetic; a line of JSON for each.

python -m fake_card.training_runs FOLDER, in the environment that `fake_card.driver` makes.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from training_fixtures import quick, write_dataset

from adapters.family.memory import StepPlan
from adapters.family.musicgen.format import spec_of_sizes
from data_prep.debug_base import write_debug_base
from fake_card.card import FakeCard
from finetune.memory.predict import predict
from finetune.memory.simulate import simulate
from finetune.train import train

AMPERE, TURING = (8, 6), (7, 5)
RUNS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "bf16, previews": (AMPERE, {"preview": {"every_steps": 1, "duration_sec": 0.2}}),
    "fp16": (TURING, {}),
    "fp32": (AMPERE, {"precision": "fp32"}),
    "bf16 over fp32": (AMPERE, {"precision": "bf16", "base_weights": "fp32"}),
    "dora": (AMPERE, {"lora": {"dora": True}}),
    "pissa": (AMPERE, {"lora": {"init": "pissa"}}),
    "prior": (AMPERE, {"prior_share": 0.4, "prior_prompts": ["slow piano"], "prior_pieces": 1}),
    "dropout": (AMPERE, {"lora": {"dropout": 0.1}}),
    "recomputed, average": (AMPERE, {"checkpointing": True, "ema_decay": 0.9}),
    "adamw8bit": (AMPERE, {"optim": {"name": "adamw8bit"}}),
    "fitted": (AMPERE, {"memory": "auto"}),
}
SMALL, MEDIUM = spec_of_sizes(1024, 6, 16, 4096), spec_of_sizes(1536, 4, 24, 6144)
STEPS = [
    StepPlan(SMALL, batch_size=2, frames=500),
    StepPlan(SMALL, checkpointed=6, batch_size=4),
    StepPlan(MEDIUM, checkpointed=2, batch_size=2, optimizer="adamw8bit"),
    StepPlan(SMALL, "fp16", "fp16", batch_size=2, frames=500),
]
FIRST = {"steps": 1, "batch_size": 2, "accumulation": 1, "eval": {"every_steps": 1}}


def main(folder: Path) -> None:
    """Every run, also after one that failed."""
    base = write_debug_base(folder / "base")
    data = write_dataset(folder / "data", base, train=(30, 41), validation=(37,))
    for name, (capability, more) in RUNS.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        settings = quick(**{"device": "cuda", "precision": "auto", **FIRST, **more})
        card, problem = FakeCard(capability), ""
        try:
            with card:
                train(data, folder / name, settings)
        except BaseException:
            problem = traceback.format_exc()
        told = card.ledger
        line = {"name": name, "problem": problem, "waits": told.waits, "upcasts": told.upcasts, "copies": told.copies}
        line |= {"captures": told.captures, "replays": told.replays, "kernels": sum(told.kernels.values())}
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
