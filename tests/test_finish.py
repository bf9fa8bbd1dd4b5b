"""What a finished run hands out: pieces to compare with the base's, and a description whatever its settings were."""

from pathlib import Path

import pytest
import training_fixtures
from training_fixtures import quick, write_dataset

from adapters import adapter_files, hub
from adapters.bundle import pack, unpack
from adapters.metadata import MAX_NAME, MAX_PROMPTS
from adapters.shareable import MAX_SAMPLES, check_number
from configs.errors import UserError
from finetune.finish import sample_name, samples_of
from finetune.preview import PreviewFile, read_previews
from finetune.train import train

pytestmark = pytest.mark.usefixtures("fresh_processes")


def test_the_card_plays_each_prompt_with_and_without_the_adapter(tiny_data: Path, tmp_path: Path) -> None:
    prompts = ["slow ballad", "punk: loud"]
    preview = {"every_steps": 1, "prompts": prompts, "duration_sec": 0.1}
    adapter = train(tiny_data, tmp_path / "run", quick(steps=1, preview=preview))
    played = {(piece.step, piece.prompt): piece.file for piece in read_previews(tmp_path / "run" / "samples")}
    for number, prompt in enumerate(prompts, start=1):
        base, tuned = (adapter / "samples" / f"0{number}{end}.flac" for end in ("-base", ""))
        assert base.read_bytes() == (tmp_path / "run" / "samples" / played[0, prompt]).read_bytes()
        assert tuned.read_bytes() == (tmp_path / "run" / "samples" / played[1, prompt]).read_bytes()
        links = f"[with the adapter](samples/{tuned.name}), [the base alone, same seed](samples/{base.name})\n"
        assert (adapter / "README.md").read_text().count(links) == 1

    pack(adapter, tmp_path / "mine.zip")
    unpack(tmp_path / "mine.zip", tmp_path / "back")
    assert len(list((tmp_path / "back" / "samples").iterdir())) == 4
    with pytest.raises(UserError) as caught:  # its base is a folder, which is all that is wrong with its card
        hub.plan_push(adapter)
    assert caught.value.what.count("\n") == 1 and "base_model" in caught.value.what


def test_no_more_samples_than_can_be_shared() -> None:
    pieces = [PreviewFile(step, f"prompt {n}", f"step-{step:06}/{n:02}.flac") for step in (0, 9) for n in range(64)]
    samples, base = samples_of(pieces, 9), samples_of(pieces, 0)
    assert samples.keys() == base.keys() and len(samples) == MAX_SAMPLES // 2
    check_number([sample_name(piece) for piece in [*samples.values(), *base.values()]], "")


def test_long_names_end_no_run(mono_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = "in the style of " + "x" * 900
    monkeypatch.setattr(training_fixtures, "TRIGGER", trigger)
    data = write_dataset(tmp_path / "data", mono_base)
    settings = quick(steps=1)
    settings.preview.prompts.extend(["a " * 3000] * 65)  # behind the check that no run names prompts and plays none
    told = adapter_files.load(train(data, tmp_path / ("r" * 210), settings)).woodshed
    assert told is not None and told.name == "r" * MAX_NAME and told.trigger == trigger
    assert len(told.prompts) == MAX_PROMPTS
