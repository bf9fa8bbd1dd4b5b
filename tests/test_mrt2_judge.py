"""Magenta RealTime under the judge: it is asked with its own text encoder, and silence is seen."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from training_fixtures import quick, write_dataset

from configs.evaluate import EvaluateSettings
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.magenta_rt2.debug_base import CHECKPOINT_NAME, write_debug_mrt2
from data_prep.prepared import PreparedDataset
from data_prep.tokens import write_tokens
from finetune.judge import after_training
from finetune.judge.health import check
from finetune.judge.plan import Ask
from finetune.judge.play import play, sampler
from finetune.judge.teacher import Heard, Teacher
from finetune.judge.verdict import health_finding
from finetune.train import train


def test_the_teacher_asks_with_style_tokens():
    teacher = Teacher(resolve_base("debug-mrt2"), "cpu")
    codes = np.random.default_rng(0).integers(0, 64, (12, 20)).astype(np.int16)
    told, other, bare = teacher.losses([Heard(codes, "calm piano"), Heard(codes, "fast drums"), Heard(codes, "")])
    assert np.isfinite([told, other, bare]).all() and len({told, other, bare}) == 3


def with_silence(folder: Path) -> Path:
    """A tiny base in which code 0 on every level sounds like nothing: no feature, and no bias behind it."""
    base = write_debug_mrt2(folder)
    checkpoint = base / "checkpoints" / f"{CHECKPOINT_NAME}.safetensors"
    for file in (checkpoint, *(base / "resources" / "spectrostream").glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        for name, tensor in tensors.items():
            if "decoder/" in name and name.endswith("/bias") and "depthformer" not in name:
                tensor.zero_()
            if name.endswith("quantizer/embedding"):
                tensor[:, 0] = 0
        save_file(tensors, file, metadata=metadata)
    return base


def test_an_adapter_that_falls_silent_is_caught_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = with_silence(tmp_path / "base")
    files = resolve_base(str(base))
    data = write_dataset(tmp_path / "data", base, train=(30,), validation=())
    ids = [row.id for row in PreparedDataset(data).clips()]
    shutil.rmtree(data / "tokens")
    write_tokens(data / "tokens", ids, [np.zeros((12, 30), np.int16)], "1" * 32)
    lora = {"rank": 8, "alpha": 16.0, "targets": ["temporal_attention", "ffn", "depth", "heads"]}
    how = {"batch_size": 1, "accumulation": 1, "max_clip_sec": 1.2, "optim": {"lr": 0.05, "warmup_steps": 0}}
    words = "piano, take 0, in the style of tests"
    preview = {"every_steps": 30, "duration_sec": 1.0, "prompts": [words], "guidance": 4.0}
    adapter = train(data, tmp_path / "run", quick(**how, lora=lora, steps=30, preview=preview))
    said = capsys.readouterr().err
    assert f"step 30: 100% of the preview of {words!r} is silent" in said and "step 0:" not in said
    settings = EvaluateSettings(duration_sec=3.2, precision="fp32", device="cpu", guidance=4.0)
    asks = [Ask("own", words, seed) for seed in range(2)]
    players = sampler(files, settings), sampler(files, settings, adapter)
    base, adapted = (
        [check(piece.audio, piece.codes, 48_000, 25.0) for piece in play(player, asks)] for player in players
    )
    unknown = np.full(2, np.nan)
    found = health_finding(base, adapted, unknown, unknown)
    assert found.level == "bad" and "2 of 2 pieces are silent (0 with the base)" in found.text


def test_what_an_evaluation_costs_is_not_judged_by_its_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first piece may take a hundred times as long as the next: kernels are loaded and code is compiled in it."""
    played: list[float] = []

    def play_slowly_at_first(player: SimpleNamespace, asks: list[Ask]) -> None:
        time.sleep(0.02 if played else 1.0)
        played.append(player.settings.duration_sec)

    player = SimpleNamespace(settings=SampleSettings(duration_sec=after_training.PROBE_SEC))
    monkeypatch.setattr("finetune.judge.play.play", play_slowly_at_first)
    monkeypatch.setattr("finetune.judge.play.sampler", lambda files, settings: player)
    monkeypatch.setattr("finetune.judge.subject.open_subject", lambda run: SimpleNamespace(files=None))
    assert after_training.expected_sec(Path("run"), EvaluateSettings()) < 20
    assert played == [after_training.WARM_UP_SEC, after_training.PROBE_SEC]
