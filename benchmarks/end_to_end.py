"""The whole path on real rock recordings: prep, train, sample, merge, each as the command a person runs.

    uv run python -m benchmarks.end_to_end                  # the 27 minutes of rock_songs.py, on the debug base
    uv run python -m benchmarks.end_to_end --songs my_songs --base facebook/musicgen-small
    uv run python -m benchmarks.end_to_end --songs one_song --random facebook/musicgen-small --train "--steps 3"

Prints time, processor time and peak memory per stage and the size of what each leaves, and writes the same as JSON.
The debug base is random and tiny: it times everything around the model, and its music is noise. `--random` writes a
base with the true configuration of a hub model and random weights: its cost without its download.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks.rock_songs import song_folder
from data_prep.debug_base import write_random_base

MIB = 1024 * 1024


@dataclass
class Stage:
    """What one command cost. Memory is the peak of its largest process."""

    name: str
    command: str
    wall_sec: float
    cpu_sec: float
    peak_mib: float
    size_mib: float


def run_stage(name: str, arguments: list[str], product: Path, log: Path, module: str = "finetune.cli") -> Stage:
    """Run `woodshed`, or another module, with the arguments and measure it; the output goes to the log.

    Raises:
        SystemExit: when the command fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    start = time.perf_counter()
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_sec = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}; see {log}")
    shown = shlex.join([*(["woodshed"] if module == "finetune.cli" else ["python", "-m", module]), *arguments])
    cpu_sec = usage.ru_utime + usage.ru_stime
    stage = Stage(name, shown, wall_sec, cpu_sec, usage.ru_maxrss / 1024, folder_bytes(product) / MIB)
    print(f"{name}: {wall_sec:.1f} s, {cpu_sec:.1f} s of processor time", flush=True)
    return stage


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def run_all(songs: Path, work: Path, base: str, train_flags: list[str]) -> list[Stage]:
    """The four commands of the README, and prep a second time: finished work is not done again."""
    data, run, log = work / "data", work / "run", work / "output.log"
    prompt = "fast rock, electric guitar, in the style of the benchmark"
    prep = ["prep", str(songs), str(data), "--base", base, "--trigger", "in the style of the benchmark"]
    train = ["train", str(data), str(run), *train_flags]
    where = ["--base", base] if Path(base).is_dir() else []  # of a folder an adapter keeps the name alone
    sample = ["sample", str(run / "adapter"), prompt, "--out", str(work / "out"), "--duration_sec", "10", *where]
    merge = ["merge", str(run / "adapter"), str(work / "merged"), *where]
    return [
        run_stage("prep", prep, data, log),
        run_stage("prep again", prep, data, log),
        run_stage("train", train, run, log),
        run_stage("sample", sample, work / "out", log),
        run_stage("merge", merge, work / "merged", log),
    ]


def peer_stage(work: Path) -> Stage:
    """Training on the same dataset the peer's way: as many steps of as many clips as our run had, start-up included."""
    settings = yaml.safe_load((work / "run" / "config.yaml").read_text("utf-8"))["train"]
    lines = [json.loads(line) for line in (work / "run" / "log.jsonl").read_text("utf-8").splitlines()]
    words = [str(work / "data"), str(work / "peer"), "--steps", str(sum(line["kind"] == "step" for line in lines))]
    words += ["--batch", str(settings["batch_size"]), "--accumulation", str(settings["accumulation"])]
    words += ["--max-sec", str(settings["max_clip_sec"])]
    return run_stage("train, peer's way", words, work / "peer", work / "output.log", module="benchmarks.peer_run")


def table(stages: list[Stage]) -> str:
    """The stages as a Markdown table."""
    head = "| stage | wall s | cpu s | peak MiB | left on disk MiB |\n| --- | --- | --- | --- | --- |\n"
    row = "| {0.name} | {0.wall_sec:.1f} | {0.cpu_sec:.1f} | {0.peak_mib:.0f} | {0.size_mib:.1f} |\n"
    return head + "".join(row.format(stage) for stage in stages)


def main() -> None:
    """Parse the arguments, run, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("benchmark-end-to-end"), help="an empty folder to work in")
    parser.add_argument("--songs", type=Path, help="a folder of your own recordings instead")
    parser.add_argument("--base", default="debug")
    parser.add_argument("--random", metavar="ID", help="a base like this one of the hub, with random weights")
    parser.add_argument("--layers", type=int, help="of --random: so many decoder layers instead of the true number")
    parser.add_argument("--train", default="--preset cpu-debug", help="flags for `woodshed train`, in one string")
    parser.add_argument("--peer", action="store_true", help="train the same dataset the peer's way as well")
    args = parser.parse_args()
    if args.work.exists() and any(child.name not in ("songs", "packages") for child in args.work.iterdir()):
        raise SystemExit(f"{args.work} holds something already; give an empty folder with --work")
    args.work.mkdir(parents=True, exist_ok=True)
    songs = args.songs or song_folder(args.work)
    base = args.base
    if args.random:
        base = str(write_random_base(args.work / "base", args.random, layers=args.layers))
    stages = run_all(songs, args.work, base, shlex.split(args.train))
    if args.peer:
        stages.append(peer_stage(args.work))
    environment = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    (args.work / "end_to_end.json").write_text(
        json.dumps({"environment": environment, "stages": [asdict(s) for s in stages]})
    )
    print(json.dumps(environment))
    print(table(stages))
    for stage in stages:
        print(f"{stage.name}: {stage.command}")


if __name__ == "__main__":
    main()
