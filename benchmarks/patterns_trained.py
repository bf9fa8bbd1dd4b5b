"""The starter moved to each codebook pattern by equally short training: the second table in docs/patterns.md.

    python -m benchmarks.patterns_trained DATA OUT [--steps 40] [--only flattening]

DATA is a prepared dataset of the starter (`woodshed prep starter/songs DATA --base starter --segment.max_sec 10`).
Every pattern learns from the same clips in the same order, as many steps each, with the same adapter. What is done is
kept in OUT, one file per pattern, and not done again. Cross-entropy is that of the held-out clips, in nats per code.
Times are this process's own, on one thread of a CPU.
"""

import argparse
import json
import time
from pathlib import Path

from adapters.sampler import AdapterSpec, Sampler
from benchmarks.patterns import patterns
from configs.sample import SampleSettings
from configs.train import TrainSettings
from data_prep.base_files import resolve_base
from finetune.run_log import read_log
from finetune.train import train

CLIP_SEC = 5.0


def settings_of(name: str, steps: int) -> TrainSettings:
    """Equal for all but the pattern; the rates are high because the training is short."""
    given = {
        "pattern": name,
        "steps": steps,
        "batch_size": 2,
        "accumulation": 1,
        "max_clip_sec": CLIP_SEC,
        "precision": "fp32",
        "device": "cpu",
        "checkpointing": False,
        "evaluate": False,
        "lora": {"rank": 32, "alpha": 32.0},
        "optim": {"lr": 2e-3, "warmup_steps": 5},
        "eval": {"every_steps": 0},
        "preview": {"every_steps": 0},
        "checkpoint": {"every_steps": 0},
        "loggers": [],
    }
    return TrainSettings.model_validate(given)


def measured(data: Path, out: Path, name: str, steps: int) -> dict:
    """Train, look at the held-out clips, play one piece."""
    begun = time.process_time()
    adapter = train(data, out / name, settings_of(name, steps))
    trained_sec = time.process_time() - begun
    lines = read_log(out / name / "log.jsonl")
    last = {line["kind"]: line for line in lines}
    settings = SampleSettings(duration_sec=CLIP_SEC, window_sec=CLIP_SEC, overlap_sec=2.0)
    sampler = Sampler.load(resolve_base("starter"), [AdapterSpec(adapter)], settings)
    sampler.codes(["steel drums"], n_frames=50)  # what is made once
    begun = time.process_time()
    sampler.codes(["steel drums"])
    return {
        "name": name,
        "base": last["base"]["codebooks"],
        "adapted": last["eval"]["codebooks"],
        "trained_sec": trained_sec,
        "played_sec": time.process_time() - begun,
        "steps": steps,
    }


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="A dataset of the starter.")
    parser.add_argument("out", type=Path, help="Runs and results.")
    parser.add_argument("--steps", type=int, default=40, help="Optimizer steps of each pattern (40).")
    parser.add_argument("--only", help="One pattern.")
    args = parser.parse_args()
    for name in [words.replace(" ", "_") for words in patterns(4, 1)]:
        result = args.out / f"{name}.json"
        if not result.exists() and args.only in (None, name):
            args.out.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps(measured(args.data, args.out, name, args.steps)))
    print("| pattern | before | after | k = 0 | 1 | 2 | 3 | training | 5 s of music |\n" + "| --- " * 9 + "|")
    for path in sorted(args.out.glob("*.json")):
        found = json.loads(path.read_text())
        mean = {side: sum(found[side]) / len(found[side]) for side in ("base", "adapted")}
        each = " | ".join(f"{value:.3f}" for value in found["adapted"])
        times = f"{found['trained_sec']:.0f} s | {found['played_sec']:.1f} s"
        print(f"| {found['name'].replace('_', ' ')} | {mean['base']:.3f} | {mean['adapted']:.3f} | {each} | {times} |")


if __name__ == "__main__":
    main()
