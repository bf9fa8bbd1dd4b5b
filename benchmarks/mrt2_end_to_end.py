"""Magenta RealTime 2 at its true size with random weights through every command: prep, train, sample, merge.

    python -m benchmarks.mrt2_end_to_end --work DIR [--stages prep,train2,train10,sample,merge] [--steps 20]

Time, processor time and peak memory of each command, beside the memory that the planner predicts for its training
step. Weights are random and the style model is a stand-in, so what is learnt and played means nothing; what it costs
does. Stages that are done are kept in DIR/stages.json and not run again, so that a long run can be cut into pieces.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from adapters.family.magenta_rt2.spec import FRAME_RATE_HZ, SIZES, lm_spec
from adapters.family.memory import StepPlan
from benchmarks.end_to_end import Stage, run_stage
from benchmarks.measure import environment
from data_prep.codec.spectrostream.shape import SAMPLE_RATE_HZ, CodecShape
from data_prep.magenta_rt2.debug_base import write_debug_mrt2
from finetune.memory.predict import predict

TRIGGER = "in the style of the benchmark"
SONG_SEC = (16, 16, 12)
CROPS_SEC = {"train2": 2, "train10": 10}
STAGES = ("prep", *CROPS_SEC, "sample", "merge")


def songs_in(folder: Path) -> Path:
    """Three short stereo songs of decaying tones, the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for number, sec in enumerate(SONG_SEC):
        audio = np.zeros((sec * SAMPLE_RATE_HZ, 2), np.float32)
        for start in np.arange(0, sec - 1, 0.25):
            time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
            tone = np.sin(2 * np.pi * 110 * 2 ** (draw.integers(0, 24) / 12) * time) * np.exp(-4 * time)
            at = round(start * SAMPLE_RATE_HZ)
            audio[at : at + len(tone)] += (0.2 * tone[:, None] * draw.uniform(0.3, 1, 2)).astype(np.float32)
        soundfile.write(folder / f"song{number}.wav", audio.clip(-0.99, 0.99), SAMPLE_RATE_HZ)
    return folder


def command(stage: str, work: Path, steps: int, sample_sec: float) -> tuple[list[str], Path]:
    """The words of a stage's command, and what it leaves."""
    data, base, adapter = work / "data", str(work / "base"), str(work / "train2" / "adapter")
    if stage == "prep":
        own = ["--base", base, "--trigger", TRIGGER, "--captions.listeners.use", "[]", "--workers", "1"]
        return ["prep", str(work / "songs"), str(data), *own], data
    if stage in CROPS_SEC:
        own = ["--max_clip_sec", str(CROPS_SEC[stage]), "--steps", str(steps), "--batch_size", "1"]
        own += ["--accumulation", "1", "--preview.every_steps", "0", "--eval.max_clips", "1"]
        own += ["--eval.every_steps", "0", "--evaluate", "false", "--loggers", "[]", "--checkpointing", "false"]
        return ["train", str(data), str(work / stage), *own], work / stage
    if stage == "sample":
        words = ["sample", adapter, f"piano, {TRIGGER}", "--base", base, "--out", str(work / "out")]
        return [*words, "--duration_sec", str(sample_sec)], work / "out"
    return ["merge", adapter, str(work / "merged"), "--base", base], work / "merged"


def predicted_mib(stage: str, name: str, weights: str) -> float | None:
    """The planner's peak of a training step, MiB; None for what does not train."""
    if stage not in CROPS_SEC:
        return None
    plan = StepPlan(lm_spec(SIZES[name]), weights, weights, 0, 1, round(CROPS_SEC[stage] * FRAME_RATE_HZ))  # pyright: ignore[reportArgumentType]
    return predict(plan).peak / 2**20


def table(stages: dict[str, Stage], name: str, weights: str) -> str:
    """As Markdown."""
    rows = ["| stage | wall s | cpu s | peak MiB | training step, predicted MiB | left on disk MiB |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for key, stage in stages.items():
        predicted = predicted_mib(key, name, weights)
        said = "" if predicted is None else f"{predicted:.0f}"
        rows.append(
            f"| {key} | {stage.wall_sec:.0f} | {stage.cpu_sec:.0f} | {stage.peak_mib:.0f} | {said} "
            f"| {stage.size_mib:.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Run the stages that are not done, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", choices=list(SIZES), default="mrt2_small")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sample-sec", type=float, default=4.0)
    parser.add_argument("--weights", default="bf16", help="how training holds the base here, to predict for")
    given = parser.parse_args()
    work, kept = given.work, given.work / "stages.json"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "base").is_dir():
        made = write_debug_mrt2(work / "making", spec=SIZES[given.name], codec=CodecShape(), name=given.name)
        made.rename(work / "base")
        songs_in(work / "songs")
    done = {key: Stage(**stage) for key, stage in json.loads(kept.read_text()).items()} if kept.exists() else {}
    for stage in given.stages.split(","):
        if stage in done:
            continue
        words, product = command(stage, work, given.steps, given.sample_sec)
        if stage != "prep":
            shutil.rmtree(product, ignore_errors=True)
        done[stage] = run_stage(stage, words, product, work / "output.log")
        kept.write_text(json.dumps({key: asdict(one) for key, one in done.items()}, indent=2))
    print(json.dumps(environment()))
    print(table(done, given.name, given.weights))


if __name__ == "__main__":
    main()
