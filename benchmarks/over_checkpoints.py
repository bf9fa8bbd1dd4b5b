"""How style, forgetting and memorisation grow over a run: the picture of docs/evaluating.md.

    python -m benchmarks.over_checkpoints learn SONGS RUN          # a run that goes on far too long, on one song
    python -m benchmarks.over_checkpoints hear RUN                 # goes on where it stopped: figures.json in the run
    python -m benchmarks.over_checkpoints draw RUN docs/over-checkpoints.svg

`hear` asks the judge's own measures of every kept step at full strength: style gained and forgetting by KAD in the
space of musicnn, and the completion test on training and on held-out clips. Any run will do; `learn` makes one whose
answer is known: one song of the starter's ten, three held out, at three times the demo's rate.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from adapters import adapter_files
from configs.evaluate import EvaluateSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from configs.train import TrainSettings
from data_prep.prepare import prepare
from finetune.judge.copying import completed, completion_frames
from finetune.judge.heard import hear, open_room
from finetune.judge.plan import own_prompts, plan, taught_prompts
from finetune.judge.play import sampler
from finetune.judge.reference import reference_of, windows
from finetune.judge.subject import candidates, open_subject
from finetune.train import train

TRIGGER = "in island style"
LEARNT, HELD_OUT = {1}, {2, 7, 9}
COMPLETIONS = 3


def learn(songs: Path, run: Path, steps: int) -> None:
    """Prepare the songs beside the run, keep one to learn from, and train on it far too long."""
    data = run.with_name(f"{run.name}-data")
    captions = CaptionSettings(trigger=TRIGGER, variants=1)
    segment = SegmentSettings(max_sec=20.0, min_sec=3.0)
    prepare(songs, data, PrepSettings(base="starter", segment=segment, captions=captions, workers=1))
    shutil.rmtree(data / ".cache", ignore_errors=True)
    rows = [json.loads(line) for line in (data / "clips.jsonl").read_text("utf-8").splitlines()]
    numbered = [(int(row["source"][:2]), row) for row in rows]
    kept = [
        row | {"split": "train" if number in LEARNT else "validation"}
        for number, row in numbered
        if number in LEARNT | HELD_OUT
    ]
    (data / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": 4,
        "accumulation": 1,
        "max_clip_sec": 5.0,
        "checkpointing": False,
        "prior_share": 0.0,
        "lora": {"rank": 64, "alpha": 64.0},
        "optim": {"lr": 3e-3, "warmup_steps": 5, "schedule": "constant"},
        "eval": {"every_steps": 0},
        "preview": {"every_steps": 0},
        "checkpoint": {"every_steps": 0, "final": "last", "places": 8},
        "evaluate": False,
        "loggers": [],
    }
    train(data, run, TrainSettings.model_validate(settings))


def hear_run(run: Path, settings: EvaluateSettings) -> None:
    """Measure each kept step and write it down; steps that are there are not measured again."""
    path = run / "figures.json"
    known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    subject = open_subject(run)
    assert subject.dataset is not None and subject.adapter.woodshed is not None
    rate = subject.files.spec.frame_rate
    n_frames = round(settings.duration_sec * rate)
    own = own_prompts(subject.dataset, subject.adapter.woodshed.prompts)
    asks = plan(settings, own, subject.trigger, taught_prompts(subject.dataset))
    asks = [ask for ask in asks if ask.kind in ("own", "foreign")]
    todo = [one for one in candidates(subject, checkpoints=True) if str(one.step) not in known]
    if not todo:
        return
    room = open_room(subject.files, settings, asks, reference_of(subject.dataset, n_frames), print)
    long = [windows(subject.dataset, split, completion_frames(rate), COMPLETIONS) for split in ("train", "validation")]
    if "0" not in known:
        base = sampler(subject.files, settings)
        known["0"] = {"style": [0, 0, 0], "forgetting": [0, 0, 0]}
        known["0"] |= {
            name: completed(base, these, rate) for name, these in zip(("learnt", "held_out"), long, strict=True)
        }
    for one in todo:
        folder = run / "steps" / str(one.step)
        if not folder.exists():
            adapter_files.save(folder, one.updates, subject.adapter.woodshed)
        heard = hear(room, folder, 1.0, asks)
        assert heard.style is not None and heard.forgetting is not None
        player = sampler(subject.files, settings, folder, 1.0)
        figures: dict[str, Any] = {
            name: [estimate.value, estimate.low, estimate.high]
            for name, estimate in (("style", heard.style), ("forgetting", heard.forgetting))
        }
        figures |= {
            name: completed(player, these, rate) for name, these in zip(("learnt", "held_out"), long, strict=True)
        }
        known[str(one.step)] = figures
        path.write_text(json.dumps(known, indent=1), "utf-8")
        print(one.step, json.dumps(figures), flush=True)


def draw(run: Path, out: Path) -> None:
    """One picture: percent over steps."""
    from matplotlib.figure import Figure

    known = json.loads((run / "figures.json").read_text("utf-8"))
    steps = sorted(map(int, known))
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, label, colour in (("style", "style gained", "#b5622e"), ("forgetting", "forgetting", "#2f6f8f")):
        middle, low, high = zip(*(known[str(step)][name] for step in steps), strict=True)
        axes.plot(steps, middle, "o-", color=colour, label=label, markersize=4, linewidth=1.2)
        axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    for name, label, line in (("learnt", "its song comes back", "o-"), ("held_out", "held-out songs come back", "o--")):
        shares = [100 * sum(known[str(step)][name]) / len(known[str(step)][name]) for step in steps]
        axes.plot(steps, shares, line, color="#24303a", label=label, markersize=3, linewidth=1)
    axes.set_ylim(-25, 104)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("training steps", fontsize=8.5)
    axes.set_ylabel("%", fontsize=8.5)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("learn", "hear", "draw"))
    parser.add_argument("places", type=Path, nargs="+", help="learn: SONGS RUN; hear: RUN; draw: RUN OUT")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--pieces", type=int, default=10)
    args = parser.parse_args()
    if args.what == "learn":
        learn(*args.places, steps=args.steps)
    elif args.what == "hear":
        hear_run(*args.places, settings=EvaluateSettings(pieces=args.pieces, duration_sec=5.0))
    else:
        draw(*args.places)


if __name__ == "__main__":
    main()
