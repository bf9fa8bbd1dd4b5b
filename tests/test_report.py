import math
import re
from pathlib import Path

import numpy as np
import pytest
from training_fixtures import quick

from data_prep.write_audio import write_audio
from finetune.preview import PreviewFile, write_previews
from finetune.proof import GroupNorm, Proof
from finetune.report import facts, render, smooth
from finetune.run_folder import RunFolder
from finetune.run_log import RunLog, forget_after, read_log

PROOF = Proof([GroupNorm("self attention", 8, 0.5, 100.0)], [0.1, 0.2, 0.3, 0.4], 2, True, 1e-6, 1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "my <run>")
    folder.path.mkdir()
    log = RunLog(folder.log)
    log.write("base", 0, {"loss": 4.0, "codebooks": [3.0, 5.0]})
    for step in range(1, 31):
        line = {"loss": 4 * math.exp(-step / 40), "codebooks": [1.0, 2.0], "lr": 1e-4, "sec": 2.0}
        log.write("step", step, {**line, "audio_sec": 60.0, "memory_bytes": 3 * 2**30, "grad_norm": float("nan")})
    for step in (10, 20, 30):
        log.write("eval", step, {"loss": 4.0 - step / 20, "base_loss": 4.0, "codebooks": [2.0, 4.0]})
    log.close()
    return folder


def test_the_page_shows_everything_and_asks_for_nothing(folder: RunFolder) -> None:
    silence = np.zeros((1, 3200), dtype=np.float32)
    pieces = [PreviewFile(step, "piano <b>", f"step-{step:06}/01.flac") for step in (0, 20)]
    for piece in pieces:
        write_audio(folder.samples / piece.file, silence, 32000)
    write_previews(folder.samples, pieces)
    page = render(folder, quick(), PROOF, 30, "facebook/musicgen-small")
    assert page.count("data:image/svg+xml") == 3 and page.count("data:audio/flac") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is fetched
    assert "piano &lt;b&gt;" in page and "<b>piano <b>" not in page and "my &lt;run&gt;" in page
    assert "self attention" in page and "0.50 %" in page and "max_clip_sec: 1.0" in page


def test_a_page_without_validation_previews_or_proof(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    RunLog(folder.log).close()
    page = render(folder, quick(), None, 0, "debug")
    assert "<audio" not in page and "Proof" not in page and "stopped at step 0" in page


def test_facts(folder: RunFolder) -> None:
    found = dict(facts(read_log(folder.log), PROOF))
    assert found["steps"] == "30" and found["time in steps"] == "1 min 0 s" and found["music heard"] == "30 min 0 s"
    assert found["held-out loss at step 30"] == "2.500" and found["the base's"] == "4.000"
    assert found["peak memory"] == "3.00 GiB" and found["predictions moved by"] == "0.250 nats"


def test_a_constant_stays_when_smoothed() -> None:
    assert smooth([3.0] * 20) == pytest.approx([3.0] * 20)
    values = smooth([0.0] * 20 + [1.0] * 20)  # 40 steps: an average over about two
    assert values[19] == 0.0 and values[20] == pytest.approx(0.5) and values[21] == pytest.approx(0.75)


def test_the_log_forgets_what_comes_again_and_what_was_cut_off(folder: RunFolder) -> None:
    with folder.log.open("a") as file:
        file.write('{"kind": "step", "step": 31, "lo')
    assert read_log(folder.log)[-1]["step"] == 30
    forget_after(folder.log, 20)
    lines = read_log(folder.log)
    assert max(line["step"] for line in lines) == 20
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 21))
    assert lines[1]["grad_norm"] is None  # JSON has no NaN
