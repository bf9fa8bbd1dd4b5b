"""A tiny prepared dataset as `woodshed prep` would leave it, with tokens made up here; and settings for short runs."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from configs.prep import CaptionSettings, PrepSettings
from configs.train import TrainSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.captions import without_trigger
from data_prep.codec.registry import base_codec_fingerprint
from data_prep.dataset_info import dataset_info
from data_prep.move import Move
from data_prep.prepared import ClipRow, text_state_name
from data_prep.text_encoders.port import load_text_encoder
from data_prep.tokens import write_tokens

TRIGGER = "in the style of tests"
TRAIN_FRAMES = (30, 55, 41, 64, 23)
VALIDATION_FRAMES = (37, 50)


def write_dataset(
    folder: Path,
    base: str | Path,
    *,
    train: tuple[int, ...] = TRAIN_FRAMES,
    validation: tuple[int, ...] = VALIDATION_FRAMES,
    move: Move | None = None,
) -> Path:
    """Clips of these lengths in frames. Tokens repeat with a short period, so that there is something to learn."""
    files = resolve_base(str(base)).moved(move or Move())
    rows = [_row(files, number, "train", n) for number, n in enumerate(train)]
    rows += [_row(files, number + len(train), "validation", n) for number, n in enumerate(validation)]
    folder.mkdir(parents=True)
    codes = [_codes(files, number, row.n_frames) for number, row in enumerate(rows)]
    write_tokens(folder / "tokens", [row.id for row in rows], codes, "0" * 32)
    (folder / "clips.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    (folder / "rejected.jsonl").write_text("")
    encoder = load_text_encoder(files)
    captions = {caption for row in rows for caption in row.captions}
    captions = sorted(captions | {without_trigger(caption, TRIGGER) for caption in captions} | {TRIGGER})
    (folder / "text_states").mkdir()
    for caption, states in zip(captions, encoder.encode(captions), strict=True):
        name = text_state_name(caption, encoder.fingerprint)
        save_file({"states": states.numpy()}, folder / "text_states" / f"{name}.safetensors")
    settings = PrepSettings(base=str(base), captions=CaptionSettings(trigger=TRIGGER))
    info = dataset_info(
        settings, files, codec=base_codec_fingerprint(files), text_encoder=encoder.fingerprint, separator=None
    )
    (folder / "prep.yaml").write_text(yaml.safe_dump({**info, "content": "0" * 32}))
    return folder


def _row(files: BaseFiles, number: int, split: str, n_frames: int) -> ClipRow:
    captions = [f"piano, take {number}, {TRIGGER}", f"slow piano and bass, {TRIGGER}"]
    return ClipRow(
        id=f"clip{number:02}",
        source=f"song{number}.wav",
        source_sha256="0" * 64,
        start_sec=0.0,
        duration_sec=n_frames / files.spec.frame_rate,
        n_frames=n_frames,
        stems="mix",
        split=split,
        captions=captions,
    )


def _codes(files: BaseFiles, number: int, n_frames: int) -> np.ndarray:
    """A melody of eight notes with some wrong ones."""
    draw = np.random.default_rng(number)
    melody = np.random.default_rng(1000).integers(0, files.spec.card, (files.spec.n_codebooks, 8))
    codes = np.tile(melody, (1, n_frames // 8 + 1))[:, :n_frames]
    wrong = draw.random(codes.shape) < 0.1
    return np.where(wrong, draw.integers(0, files.spec.card, codes.shape), codes).astype(
        np.int16 if files.spec.card < 2**15 else np.int32
    )


def quick(**more) -> TrainSettings:
    """Settings for a run of a second or so: no previews, no curves; fp32, whatever this machine would choose."""
    given = {
        "steps": 6,
        "batch_size": 2,
        "accumulation": 2,
        "max_clip_sec": 1.0,
        "device": "cpu",
        "precision": "fp32",
        "checkpointing": False,
        "lora": {"rank": 2, "alpha": 4.0},
        "optim": {"lr": 0.01, "warmup_steps": 1},
        "eval": {"every_steps": 3},
        "preview": {"every_steps": 0},
        "prior_share": 0.0,
        "checkpoint": {"every_steps": 2},
        "loggers": [],
    }
    for name, value in more.items():
        given[name] = {**given.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainSettings.model_validate(given)
