"""What a run's folder keeps, refuses and clears away."""

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.train import OptimSettings, TrainSettings
from finetune.run_folder import RunFolder, describe, refuse_changes, refuse_used, resumed_settings

STANDING = {
    "dataset": {"name": "d", "fingerprint": "1"},
    "base": {"name": "b", "fingerprint": "2"},
    "clips_per_step": 8,
}


def begun(path: Path) -> RunFolder:
    """A run that was cut off before its first checkpoint."""
    folder = RunFolder(path)
    folder.path.mkdir()
    describe(folder, TrainSettings(), STANDING, {})
    (folder.checkpoints / ".checkpoint-1.partial").mkdir(parents=True)
    (folder.samples).mkdir()
    folder.log.write_text("{}\n")
    return folder


def test_what_hardly_began_is_cleared(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    refuse_used(folder)
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("foreign", ["notes.txt", "adapter", "checkpoints/checkpoint-3"])
def test_nothing_is_cleared_beside_what_no_such_run_writes(tmp_path: Path, foreign: str) -> None:
    folder = begun(tmp_path / "run")
    (folder.path / foreign).mkdir()
    held = sorted(folder.path.rglob("*"))
    with pytest.raises(UserError, match="holds a run already"):
        refuse_used(folder)
    assert sorted(folder.path.rglob("*")) == held


@pytest.mark.parametrize("versions", [None, "{}", "[]", "no json"])
def test_a_folder_of_another_program_is_left_alone(tmp_path: Path, versions: str | None) -> None:
    (tmp_path / "config.yaml").write_text("model: theirs")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "take1.wav").write_text("theirs")
    if versions is not None:
        (tmp_path / "versions.json").write_text(versions)
    with pytest.raises(UserError):
        refuse_used(RunFolder(tmp_path))
    assert (tmp_path / "samples" / "take1.wav").exists() and (tmp_path / "config.yaml").exists()


def test_the_same_command_goes_on_with_what_was_fitted(tmp_path: Path) -> None:
    """`--memory` chose another optimizer and another cut of the batch: the flags of the first call still mean those."""
    folder = RunFolder(tmp_path)
    given = TrainSettings(batch_size=4, accumulation=2, memory="3gb", optim=OptimSettings(name="adamw8bit"))
    fitted = given.model_copy(deep=True, update={"batch_size": 1, "accumulation": 8})
    fitted.optim.name = "paged_adamw8bit"
    describe(folder, fitted, STANDING, given.model_dump(mode="json", exclude_unset=True))
    again = resumed_settings(folder, given)
    assert (again.optim.name, again.batch_size, again.accumulation) == ("paged_adamw8bit", 1, 8)
    refuse_changes(folder, again, STANDING)

    other = given.model_copy(deep=True)
    other.optim.name = "prodigy"
    with pytest.raises(UserError, match=r"optim\.name: paged_adamw8bit → prodigy"):
        refuse_changes(folder, resumed_settings(folder, other), STANDING)
    assert json.loads(folder.versions.read_text())["asked"]["optim"] == {"name": "adamw8bit"}
