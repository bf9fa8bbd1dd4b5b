"""`woodshed codec train`: a codec of one's own from a folder of songs, with held-out songs, going on where it stopped.

It knows mono: stereo songs are heard as their mix, and the trained codec takes stereo channel by channel, as the port
does with every mono codec. It says nothing of music that is not in the folder.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from data_prep.codec.port import Codec
from data_prep.codec.registry import load_codec
from data_prep.codec.resolve import resolve_codec
from data_prep.decode import AudioError, reason, stream
from data_prep.progress import stage
from data_prep.scan import scan
from finetune.codec_train.crops import Crops
from finetune.codec_train.export import save_codec
from finetune.codec_train.figures import MEASURED_SEC, Figures, as_audio, figures_of, middle
from finetune.codec_train.learner import Learner, lr_factor
from finetune.codec_train.settings import CodecSettings
from finetune.codec_tune.recordings import hold_out
from finetune.codec_tune.state import STATE, load_state, read_told, refuse_another, save_state, start_folder

CODEC, LOG, FIGURES, PAGE = "codec", "log.jsonl", "figures.json", "report.html"
LOG_EVERY = 20
EVERY_STEPS = 200
"""Between two measurements of the held-out songs; the state is saved then too."""


@dataclass(frozen=True)
class Song:
    """A song's name and its mono mix at the codec's rate, as 16-bit samples."""

    name: str
    audio: Int[np.ndarray, " N"]


@dataclass(frozen=True)
class Trained:
    """What a run gave: the folder of the codec, its figures on held-out songs, one of these, and what was left out."""

    path: Path
    settings: CodecSettings
    figures: Figures
    best_step: int
    trained_sec: float
    passage: Song
    left_out: list[str]


def train(
    songs: Path, out: Path, settings: CodecSettings, device: torch.device, *, every_steps: int = EVERY_STEPS
) -> Trained:
    """Train a codec, or go on with a run that was stopped. The best on held-out songs lies in `out`/codec.

    Raises:
        UserError: settings, songs or `out` cannot be used.
        FloatingPointError: the loss is not finite; what was saved last is whole.
    """
    # 1. What it hears
    settings.check()
    heard, left_out = read_songs(songs, settings)
    kept, held = hold_out(heard, left_out)
    n_samples = round(settings.crop_sec * settings.sample_rate_hz)
    crops = Crops([song.audio for song in kept], n_samples, settings.batch_size, device)

    # 2. What learns, and where it stands
    learner = Learner(settings, device)
    run = {"songs": [song.name for song in heard], "settings": json.loads(json.dumps(asdict(settings)))}
    told = _begin(out, run, learner)

    # 3. The loop
    started_sec, before_sec = time.monotonic(), told["trained_sec"]
    while told["step"] < settings.steps:
        step = told["step"]
        factor = lr_factor(step, step / settings.steps)
        losses = learner.step(lambda at, seed=0: crops.batch(at, seed=2 * settings.seed + seed), step, factor)
        told |= {"step": step + 1, "trained_sec": before_sec + time.monotonic() - started_sec}
        if told["step"] % LOG_EVERY == 0:
            _log(out, {"step": told["step"], **{name: float(loss.detach()) for name, loss in losses.items()}})
        if told["step"] % every_steps == 0 or told["step"] == settings.steps:
            _keep_best(out, learner, held, told)
            save_state(out, learner.modules, learner.optimizers, told)

    # 4. What the best one keeps, through the port
    figures = figures_of(load_trained(out / CODEC), [song.audio for song in held])
    best = Trained(out / CODEC, settings, figures, told["best_step"], told["trained_sec"], held[0], left_out)
    (out / FIGURES).write_text(json.dumps(run | {"figures": figures.to_json()} | {
        "best_step": best.best_step, "trained_sec": round(best.trained_sec, 1)}, indent=1) + "\n")  # fmt: skip
    return best


def read_songs(folder: Path, settings: CodecSettings) -> tuple[list[Song], list[str]]:
    """Every song of a folder that is longer than a crop, and what was left out with the reason."""
    found: list[Song] = []
    left_out: list[str] = []
    rate_hz = settings.sample_rate_hz
    files = scan(folder).songs
    with stage("songs", len(files), unit="songs") as progress:
        for file in files:
            try:
                blocks = list(stream(file.path, sample_rate_hz=rate_hz, channels=1))
            except (AudioError, OSError) as error:
                left_out.append(f"{file.relative}: {reason(error)}")
                continue
            audio = np.concatenate(blocks, axis=1)[0]
            if len(audio) <= settings.crop_sec * rate_hz:
                left_out.append(f"{file.relative}: not longer than {settings.crop_sec:g} s")
                continue
            found.append(Song(file.relative, (audio.clip(-1, 1) * 32767).astype(np.int16)))
            progress.advance()
    return found, left_out


def decode_passage(codec: Codec, song: Song) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a song [1, N], as it is and as the codec gives it back."""
    wanted = as_audio(middle(song.audio, round(MEASURED_SEC * codec.sample_rate_hz)))
    (codes,) = codec.encode([wanted])
    return wanted.numpy(), codec.decode(codes)[:, : wanted.shape[1]].numpy()


def _keep_best(out: Path, learner: Learner, held: Sequence[Song], told: dict[str, Any]) -> None:
    """Measure held-out songs; write the codec if none was better."""
    if told["step"] <= learner.settings.quantize_from:
        return
    distance = _distance(learner, held)
    _log(out, {"step": told["step"], "held_out_mel": distance})
    if told["best"] is None or distance < told["best"]:
        told |= {"best": distance, "best_step": told["step"]}
        save_codec(learner.model, out / CODEC)


@torch.no_grad()
def _distance(learner: Learner, held: Sequence[Song]) -> float:
    learner.model.eval()
    distances = []
    for song in held:
        n_samples = round(MEASURED_SEC * learner.settings.sample_rate_hz)
        wanted = as_audio(middle(song.audio, n_samples))[None].to(learner.device)
        distances.append(float(learner.mel(learner.model(wanted, quantize=True).audio, wanted)))
    learner.model.train()
    return float(np.mean(distances))


def load_trained(folder: Path) -> Codec:
    """The codec that a run wrote, as mono."""
    return load_codec(replace(resolve_codec(str(folder)), channels=1))


def _begin(out: Path, run: dict[str, Any], learner: Learner) -> dict[str, Any]:
    """Where an earlier run in this folder stands, or the beginning."""
    if not (out / STATE).exists():
        start_folder(out, "the codec", (CODEC, LOG, FIGURES, PAGE), [LOG])
        return {**run, "step": 0, "best": None, "best_step": 0, "trained_sec": 0.0}
    held = read_told(out)
    changed = [name for name, value in run["settings"].items() if held["settings"].get(name) != value]
    refuse_another(out, changed + ([] if held["songs"] == run["songs"] else ["songs"]))
    return load_state(out, learner.modules, learner.optimizers)


def _log(out: Path, line: dict[str, Any]) -> None:
    rounded = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")
    if "held_out_mel" in rounded:
        print("  ".join(f"{name} {value}" for name, value in rounded.items()), flush=True)
