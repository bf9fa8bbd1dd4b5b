"""A proof that does not come out right costs nothing: the adapter is saved first, and the difference is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_fixtures import quick

from adapters import adapter_files
from configs.errors import UserError
from finetune import finish, proof
from finetune.train import train

pytestmark = pytest.mark.usefixtures("fresh_processes")


def test_a_difference_is_a_warning(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(proof.TOLERANCE, "fp32", -1.0)  # nothing is good enough
    folder = train(tiny_data, tmp_path / "run", quick(steps=1))
    said = capsys.readouterr()
    assert "WARNING: loaded afresh its logits differ by" in said.err + said.out
    assert adapter_files.load(folder).updates
    assert "rounding explains" in (tmp_path / "run" / "report.html").read_text()


def test_a_difference_that_is_no_number_is_one_too() -> None:
    made = proof.Proof([], [0.0], 1, True, float("nan"), 1e-4)
    assert not made.holds
    assert proof.Proof([], [0.0], 1, True, 1e-4, 1e-4).holds


def test_running_out_of_memory_leaves_the_adapter(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(finish, "prove", no_room)
    with pytest.raises(UserError, match="Memory ran out") as caught:
        train(tiny_data, tmp_path / "run", quick(steps=1))
    assert "--resume" in caught.value.fix and "is whole" in caught.value.fix
    assert adapter_files.load(tmp_path / "run" / "adapter").updates
