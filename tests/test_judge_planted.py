"""The whole evaluation on the starter: an adapter that learnt one song by heart is flagged, a healthy one is not.

About three minutes: two short trainings and two judgements.
"""

import json
import shutil
from pathlib import Path

import pytest
from training_fixtures import quick

from configs.evaluate import EvaluateSettings, GridSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from data_prep.prepare import prepare
from finetune.judge.findings import Verdict
from finetune.judge.flow import judge
from finetune.train import train

SONGS = Path(__file__).parent.parent / "starter" / "songs"
SETTINGS = EvaluateSettings(
    pieces=6, completions=3, device="cpu", grid=GridSettings(strengths=[1.0], finalists=1, checkpoints=False)
)


@pytest.fixture(scope="module")
def all_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "all"
    captions = CaptionSettings(trigger="in island style", variants=1)
    segment = SegmentSettings(max_sec=20.0, min_sec=3.0)
    prepare(SONGS, folder, PrepSettings(base="starter", segment=segment, captions=captions, workers=1))
    return folder


def with_songs(dataset: Path, folder: Path, train_songs: set[int], held_out: set[int]) -> Path:
    """The same dataset with other songs in its splits."""
    shutil.copytree(dataset, folder, ignore=shutil.ignore_patterns(".cache"))
    rows = [json.loads(line) for line in (dataset / "clips.jsonl").read_text().splitlines()]
    kept = []
    for row in rows:
        number = int(row["source"][:2])
        if number in train_songs | held_out:
            kept.append(row | {"split": "train" if number in train_songs else "validation"})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return folder


def judged(data: Path, run: Path, **how) -> Verdict:
    train(data, run, quick(**{"max_clip_sec": 5.0, "batch_size": 4, "accumulation": 1, **how}))
    return judge(run, SETTINGS).verdict


@pytest.mark.slow
def test_one_song_by_heart_is_flagged(all_songs: Path, tmp_path: Path, fresh_processes: None) -> None:
    data = with_songs(all_songs, tmp_path / "one", {1}, {2, 7, 9})
    lora, optim = {"rank": 64, "alpha": 64.0}, {"lr": 3e-3, "warmup_steps": 5}
    every = {"every_steps": 0}
    verdict = judged(
        data, tmp_path / "run", steps=110, lora=lora, optim=optim, eval=every, checkpoint={"final": "last"}
    )
    assert verdict["copying"].level == "bad" and verdict.headline.startswith("Do not share")
    assert "single song" in " ".join(verdict.notes)


@pytest.mark.slow
def test_a_healthy_adapter_is_not(all_songs: Path, tmp_path: Path, fresh_processes: None) -> None:
    data = with_songs(all_songs, tmp_path / "nine", {1, 2, 3, 4, 5, 6, 8}, {7, 9, 10})
    lora, optim = {"rank": 16, "alpha": 16.0}, {"lr": 1e-3, "warmup_steps": 5}
    verdict = judged(data, tmp_path / "run", steps=80, lora=lora, optim=optim, eval={"every_steps": 0})
    assert verdict["copying"].level == "good" and verdict["trust"].level == "good"
    assert not verdict.headline.startswith("Do not share")
