"""Does a part fit what it follows? Adapters learnt from rendered bands on the starter, judged on held-out bands.

    python -m benchmarks.play_along /tmp/along --stage bands --task drums
    python -m benchmarks.play_along /tmp/along --stage train --task drums --steps 600
    python -m benchmarks.play_along /tmp/along --stage judge --task drums

Tasks: drums (from everything else), accompaniment (from the lead), melody (chroma), beat (a click). Every stage goes on
where it was stopped. Each held-out band is followed three times: as it is (`part`), another band's in its place
(`control`), and by the base alone, which knows the words only (`base`); `true` is the band's own part through the
codec: what the measures themselves can reach. Beats come from librosa's tracker, half and double tempo counted wrong.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.sampler import AdapterSpec, Sampler
from benchmarks.play_along import scores
from benchmarks.play_along.bands import RATE_HZ, Band, make_bands, read_bands, seeds_of
from benchmarks.play_along.tasks import TASKS, Task, write_dataset
from configs.sample import SampleSettings
from configs.train import TrainSettings
from data_prep.base_files import resolve_base
from data_prep.condition_sources.beat import BEAT
from finetune.sampling.listening_page import Row, write_listening_page
from finetune.stop import Stopped
from finetune.train import train

PLAY_SEC = 10.0
SHOWN = 8
TEMPO_WITHIN = {"drums": 0.04, "beat": 0.02}


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", choices=("bands", "train", "judge"), required=True)
    parser.add_argument("--task", choices=list(TASKS), default="drums")
    parser.add_argument("--bands", type=int, default=240, help="to learn from")
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=10, help="clips of a step")
    parser.add_argument("--clip-sec", type=float, default=4.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--way", choices=("added", "prefix"), default="added")
    parser.add_argument("--lookahead-sec", type=float, default=0.32)
    parser.add_argument("--degraded-share", type=float, default=0.5)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--context-guidance", type=float)
    parser.add_argument("--name", help="of the run, to keep several of a task")
    args = parser.parse_args()
    seeds, held_seeds = seeds_of(args.bands, args.held_out)
    folder = args.out / "bands"
    task, run = TASKS[args.task], args.out / (args.name or args.task)
    if args.stage == "bands":
        make_bands(folder, [*held_seeds, *seeds], task.sides)
        return
    held_out = read_bands(folder, held_seeds, task.sides)
    if args.stage == "train":
        learn(args, task, run, read_bands(folder, seeds, task.sides), held_out)
    else:
        found = judge(args, task, run, held_out)
        (run / "scores.json").write_text(json.dumps(found, indent=1))
        for name, rows in found.items():
            print(f"{name:8}", summary(rows, task), f"(n = {len(rows)})")


def learn(args: argparse.Namespace, task: Task, run: Path, bands: Sequence[Band], held_out: Sequence[Band]) -> None:
    """Train, or go on with it."""
    data = args.out / f"{task.name}-data-{len(bands)}"
    files = resolve_base("starter")
    if not (data / "prep.yaml").exists():
        write_dataset(data, task, bands, held_out, files)
    wanted = {
        "steps": args.steps,
        "batch_size": args.batch,
        "accumulation": 1,
        "max_clip_sec": args.clip_sec,
        "checkpointing": False,
        "optim": {"lr": args.lr},
        "lora": {"rank": 16},
        "context": {
            "way": args.way,
            "lookahead_sec": args.lookahead_sec,
            "degraded_share": args.degraded_share,
        },
        "eval": {"every_steps": 0, "max_clips": 8},
        "preview": {"every_steps": 0},
        "checkpoint": {"every_steps": 50},
        "evaluate": False,
        "loggers": [],
        "device": "cpu",
    }
    try:
        begun = any((run / "checkpoints").glob("checkpoint-*"))
        print(train(data, run, TrainSettings.model_validate(wanted), resume=begun))
    except Stopped:
        print("stopped; the same command goes on")


def judge(args: argparse.Namespace, task: Task, run: Path, bands: Sequence[Band]) -> dict[str, list[dict[str, float]]]:
    """Scores of every held-out band: the part, the control, the base, and the true part through the codec."""
    how = {"duration_sec": PLAY_SEC, "guidance": args.guidance, "context_guidance": args.context_guidance}
    settings = SampleSettings.model_validate({**how, "device": "cpu", "seed": 0})
    files, spec = resolve_base("starter"), resolve_base("starter").spec
    adapted = Sampler.load(files, [AdapterSpec(run / "adapter")], settings)
    plain = Sampler.load(files, [], settings.model_copy(update={"context_guidance": None}))
    values = [torch.from_numpy(task.values(band, spec)) for band in bands]
    others = [other_band(band, bands) for band in bands]
    words = [task.words(band.piece) for band in bands]
    dtype = torch.float32 if task.follows != "context" else torch.int64
    follow = [{task.follows: one[: round((PLAY_SEC + 1) * spec.frame_rate)].to(dtype)} for one in values]
    played = {
        "part": adapted.sample(words, also=follow),
        "control": adapted.sample(words, also=[follow[other] for other in others]),
        "base": plain.sample(words),
    }
    audio = {name: [take.waveform[0].numpy() for take in takes] for name, takes in played.items()}
    assert plain.codec is not None
    n_frames = round(PLAY_SEC * spec.frame_rate)
    audio["true"] = [plain.codec.decode(band.codes[task.target][:, :n_frames])[0].numpy() for band in bands]
    show(run, task, bands, audio)
    measure = MEASURES[task.name]
    return {
        name: [measure(one, band) for one, band in zip(pieces, bands, strict=True)] for name, pieces in audio.items()
    }


def show(run: Path, task: Task, bands: Sequence[Band], audio: dict[str, list[np.ndarray]]) -> None:
    """A page with the first eight bands: what was followed, the part, both, the control."""
    rows = []
    for number, band in enumerate(bands[:SHOWN]):
        takes = {name: pieces[number] for name, pieces in audio.items()}
        source = band.side(task.source)[: len(takes["part"])]
        n = min(len(source), len(takes["part"]))
        takes = {"followed": source, "part": takes["part"], "mix": (source[:n] + takes["part"][:n]) / 2, **takes}
        title = f"{task.words(band.piece)}, {band.piece.tempo_bpm} bpm, {band.piece.key}"
        rows.append(Row(title, {name: one[None] for name, one in takes.items()}))
    write_listening_page(run / "listen.html", f"{task.name}: what it follows, and how", rows, RATE_HZ)


def other_band(band: Band, bands: Sequence[Band]) -> int:
    """The band whose tempo and key are farthest from this one's."""

    def distance(other: Band) -> float:
        keys = scores.TONICS.index(other.piece.tonic) - scores.TONICS.index(band.piece.tonic)
        return abs(np.log(other.piece.tempo_bpm / band.piece.tempo_bpm)) + 0.1 * (keys % 12 != 0)

    return max(range(len(bands)), key=lambda number: distance(bands[number]))


def drums_measure(part: np.ndarray, band: Band) -> dict[str, float]:
    """Beats."""
    return scores.beats(part, RATE_HZ, band.piece)


def harmony_measure(part: np.ndarray, band: Band) -> dict[str, float]:
    """Harmony, and beats beside it."""
    truth = band.side("no_lead")[: len(part)]
    return {**scores.harmony(part, truth, band.piece), **scores.beats(part, RATE_HZ, band.piece)}


def melody_measure(part: np.ndarray, band: Band) -> dict[str, float]:
    """Pitch classes."""
    return scores.melody(part, band.side("pitched")[: len(part)])


MEASURES: dict[str, Callable[[np.ndarray, Band], dict[str, float]]] = {
    "drums": drums_measure,
    "accompaniment": harmony_measure,
    "melody": melody_measure,
    BEAT: drums_measure,
}


def summary(rows: Sequence[dict[str, Any]], task: Task) -> str:
    """Means; of tempi, the share that is near enough."""
    told = [f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0] if name != "tempo_off"]
    if "tempo_off" in rows[0]:
        within = TEMPO_WITHIN.get(task.name, 0.04)
        told.append(f"tempo within {within:.0%} {np.mean([row['tempo_off'] <= within for row in rows]):.3f}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
