"""`woodshed prep` as a person types it: files appear, a table says what comes next, mistakes end in plain words."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from data_prep.prepared import PreparedDataset
from data_prep.write_audio import write_audio


def woodshed(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finetune.cli", "prep", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_help_shows_examples_and_settings():
    done = woodshed("--help")
    assert done.returncode == 0
    assert "woodshed prep my_songs/ data/mine" in done.stdout and "--segment.max_sec" in done.stdout


def test_songs_become_a_dataset(tmp_path):
    time_sec = np.arange(8 * 22_050) / 22_050
    for name, hz in (("a", 220.0), ("b", 330.0)):
        audio = 0.3 * np.sin(2 * np.pi * hz * time_sec)[None].astype(np.float32)
        write_audio(tmp_path / "songs" / f"{name}.wav", audio, 22_050)
    out = tmp_path / "my data"
    done = woodshed(str(tmp_path / "songs"), str(out), "--base", "debug", "--trigger", "my style", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "woodshed train" in done.stdout and "--base debug" in done.stdout
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "read files",
        "measure",
        "listen",
        "codec tokens",
        "text states",
    ]
    rows = PreparedDataset(out).clips()
    assert len(rows) == 2 and all("my style" in caption for row in rows for caption in row.captions)


def test_a_mistake_ends_in_plain_words(tmp_path):
    done = woodshed(str(tmp_path / "nowhere"), str(tmp_path / "out"), "--base", "debug")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "nowhere" in done.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("*.*"))
