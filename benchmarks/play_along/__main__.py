"""Does a part fit what it follows? Adapters learnt from rendered bands on the starter, judged on held-out bands.

    python -m benchmarks.play_along /tmp/along --stage bands --task drums
    python -m benchmarks.play_along /tmp/along --stage train --task drums --steps 600
    python -m benchmarks.play_along /tmp/along --stage judge --task drums

Tasks: drums (from everything else), accompaniment (from the lead), accompaniment-melody (from the lead and its chroma),
melody (chroma), beat (a click), rests (drums; half of the bands rest for a while), leak-… (drums from a track that has
traces of them, and one measure against that), separated (drums from the rest, both as Demucs leaves them; judge it as
drums). Every stage goes on where it was stopped. Each held-out band is followed three times: as it is (`part`), another
band's in its place (`control`), and by the base alone, which knows the words only (`base`); `true` is the band's own
part through the codec: what the measures themselves can reach. Beats come from librosa's tracker, half and double tempo
counted wrong.
`--measure rests` and `family` ask instead whether a part rests with its context, and whether text is still heeded.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.play_along import family, rests, scores
from benchmarks.play_along.bands import RATE_HZ, Band, make_bands, read_bands, seeds_of
from benchmarks.play_along.play import audio_of, followed, samplers, share_with_error
from benchmarks.play_along.separated import separate_and_prepare
from benchmarks.play_along.tasks import SEPARATED, TASKS, Task, write_dataset
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
    parser.add_argument("--stride-frames", type=int, default=8, help="with --way prefix")
    parser.add_argument("--lookahead-sec", type=float, default=1.28)
    parser.add_argument("--size", type=int, default=64, help="of the small vectors that frames become")
    parser.add_argument("--degraded-share", type=float, default=0.5)
    parser.add_argument("--stems-model", default="htdemucs", help="of the task separated: a name or a folder")
    parser.add_argument("--history-dropout", type=float, default=0.8)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--context-guidance", type=float)
    parser.add_argument("--window-sec", type=float, help="shorter windows than the base's own")
    parser.add_argument("--measure", choices=("scores", "rests", "family"), default="scores")
    parser.add_argument("--brief", action="store_true", help="the parts alone, without control and base")
    parser.add_argument("--side", default="", help="of the held-out bands that is followed, where it is another")
    parser.add_argument("--name", help="of the run, to keep several of a task")
    args = parser.parse_args()
    seeds, held_seeds = seeds_of(args.bands, args.held_out)
    folder = args.out / "bands"
    task, run = TASKS[args.task], args.out / (args.name or args.task)
    if args.stage == "bands":
        make_bands(folder, [*held_seeds, *seeds], task.sides)
        return
    more = [rests.WITH_REST, rests.WHOLE] if args.measure == "rests" else [args.side] if args.side else []
    held_out = read_bands(folder, held_seeds, [*task.sides, *more])
    if args.stage == "train":
        learn(args, task, run, read_bands(folder, seeds, task.sides), held_out)
        return
    how = {"guidance": args.guidance, "context_guidance": args.context_guidance}
    if args.measure == "rests":
        found = rests.measure_rests(task, run, held_out, play_sec=PLAY_SEC, **how)
        lines = rests.told(found)
    elif args.measure == "family":
        found = family.measure_family(task, run, held_out, read_bands(folder, seeds, task.sides), **how)
        lines = family.told(found)
    else:
        found = judge(args, task, run, held_out)
        lines = [f"{name:8} {summary(rows, task)} (n = {len(rows)})" for name, rows in found.items()]
    (run / f"{args.measure}{args.side}.json").write_text(json.dumps(found, indent=1))
    print("\n".join(lines))


def learn(args: argparse.Namespace, task: Task, run: Path, bands: Sequence[Band], held_out: Sequence[Band]) -> None:
    """Train, or go on with it."""
    data = args.out / f"{task.name}-data-{len(bands)}"
    files = resolve_base("starter")
    if task.name == SEPARATED:
        separate_and_prepare(data, task, [*bands, *held_out], args.stems_model)
    elif not (data / "prep.yaml").exists():
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
            **({"stride_frames": args.stride_frames} if args.way == "prefix" else {}),
            "size": args.size,
            "lookahead_sec": args.lookahead_sec,
            "degraded_share": args.degraded_share,
            "history_dropout": args.history_dropout,
        },
        "eval": {"every_steps": max(args.steps // 10, 50), "max_clips": 16},
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
    spec = resolve_base("starter").spec
    how = {"guidance": args.guidance, "context_guidance": args.context_guidance}
    adapted, plain = samplers(run, play_sec=PLAY_SEC, window_sec=args.window_sec, **how)
    others = [other_band(band, bands) for band in bands]
    words = [task.words(band.piece) for band in bands]
    follow = followed(task, bands, spec, PLAY_SEC, args.side or task.judged_with)
    audio = {"part": audio_of(adapted, words, follow)}
    if not args.brief:
        assert plain.codec is not None
        n_frames = round(PLAY_SEC * spec.frame_rate)
        audio["control"] = audio_of(adapted, words, [follow[other] for other in others])
        audio["base"] = audio_of(plain, words)
        audio["true"] = [plain.codec.decode(band.codes[task.target][:, :n_frames])[0].numpy() for band in bands]
        show(run, task, bands, audio)
    measure = MEASURES.get(task.name, drums_measure)
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
    truth = band.side("chords")[: len(part)]
    return {**scores.harmony(part, truth, band.piece), **scores.beats(part, RATE_HZ, band.piece)}


def melody_measure(part: np.ndarray, band: Band) -> dict[str, float]:
    """Pitch classes."""
    return scores.melody(part, band.side("pitched")[: len(part)])


MEASURES: dict[str, Callable[[np.ndarray, Band], dict[str, float]]] = {
    "drums": drums_measure,
    "accompaniment": harmony_measure,
    "accompaniment-melody": harmony_measure,
    "melody": melody_measure,
    BEAT: drums_measure,
}


def summary(rows: Sequence[dict[str, Any]], task: Task) -> str:
    """Means with standard errors; of tempi, the share that is near enough."""
    told = [f"{name} {share_with_error([row[name] for row in rows])}" for name in rows[0] if name != "tempo_off"]
    if "tempo_off" in rows[0]:
        within = TEMPO_WITHIN.get(task.name, 0.04)
        told.append(f"tempo within {within:.0%} {share_with_error([row['tempo_off'] <= within for row in rows])}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
