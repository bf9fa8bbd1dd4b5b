"""Settings that contradict each other are refused when they are read, whichever layers they come from."""

import pytest

from configs.errors import UserError
from configs.layers import preset_names, resolve
from finetune.cli import main

CONFLICTS = [
    ("prep", {"segment.min_sec": "20", "segment.max_sec": "10"}, "segment.min_sec (20) is more than segment.max_sec"),
    ("prep", {"segment.max_sec": "4"}, "segment.min_sec (5) is more than segment.max_sec (4)"),
    ("prep", {"max_track_sec": "3"}, "max_track_sec (3) is less than segment.min_sec (5)"),
    ("prep", {"multitracks": "true"}, "belong to pair"),
    ("prep", {"stem_names": "x.csv"}, "belong to pair"),
    ("prep", {"pair": "drums|rest", "stems.use": "bass"}, "Give one of them"),
    ("prep", {"pair": "drums|rest", "stem_names": "x.csv"}, "multitracks of your own"),
    ("prep", {"notes_model": "nmp.onnx"}, "notes_model is the model that reads notes"),
    ("prep", {"captions.listeners.clap_words": "w.txt"}, "a list for clap"),
    ("sample", {"window_sec": "10"}, "overlap_sec (12) must be shorter than window_sec (10)"),
    ("live", {"overlap_sec": "20"}, "overlap_sec (20) must be shorter than window_sec (20)"),
    ("train", {"eval.patience": "3", "eval.every_steps": "0"}, "eval.patience (3) counts evaluations"),
    ("train", {"preview.prompts": "slow ballad", "preview.every_steps": "0"}, "no previews"),
    ("train", {"checkpointed_layers": "4", "checkpointing": "false"}, "checkpointing is off"),
    ("train", {"prior_prompts": "slow hymn", "prior_share": "0"}, "prior_share is 0"),
    ("train", {"optim.name": "prodigy", "lora.plus_ratio": "4"}, "one step size"),
    ("train", {"lora.init": "pissa", "base_weights": "nf4"}, "lora.init pissa changes the base's weights"),
    ("train", {"base_weights": "bf16", "precision": "fp32"}, "Leave one of them at auto"),
    ("train", {"device": "cpu", "precision": "fp16"}, "needs a CUDA GPU"),
    ("train", {"device": "cpu", "optim.name": "paged_adamw8bit"}, "device is cpu"),
]


@pytest.mark.parametrize(("section", "flags", "said"), CONFLICTS)
def test_a_contradiction_is_refused(section: str, flags: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(section, flags=flags)
    assert said in str(caught.value) and "Value error" not in str(caught.value)


@pytest.mark.parametrize(("section", "flags", "said"), [case for case in CONFLICTS if len(case[1]) == 2])
def test_each_of_the_two_alone_is_no_contradiction(section: str, flags: dict[str, str], said: str) -> None:
    alone = [{name: value} for name, value in flags.items()]
    fine = 0
    for one in alone:
        try:
            resolve(section, flags=one)
            fine += 1
        except UserError:
            assert next(iter(one)) in ("stem_names", "segment.min_sec")
    assert fine


def test_it_does_not_matter_where_they_are_set(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prep: {segment: {min_sec: 20}}\ntrain: {prior_prompts: [slow hymn]}")
    with pytest.raises(UserError, match=r"segment.min_sec \(20\)"):
        resolve("prep", None, path, {"segment.max_sec": "10"})
    assert resolve("train", None, path, {"prior_share": "0.5"})


def test_all_are_named_at_once_and_before_anything_is_read(tmp_path, capsys) -> None:
    words = ["--max_track_sec", "3", "--multitracks", "true"]
    assert main(["prep", str(tmp_path / "nowhere"), str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert "max_track_sec (3)" in said and "belong to pair" in said and "nowhere" not in said


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("section", ["prep", "train", "sample", "evaluate", "live"])
def test_no_preset_contradicts_itself(section: str, preset: str) -> None:
    assert resolve(section, preset)
