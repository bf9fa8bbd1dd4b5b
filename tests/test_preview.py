import json
from pathlib import Path

import pytest
import soundfile
import torch
from training_fixtures import TRIGGER, quick

from adapters.family.load import load_lm
from adapters.lora import attach
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.prepared import PreparedDataset
from finetune.preview import Previews, by_prompt, own_prompts, read_previews


@pytest.fixture
def files(mono_base: Path) -> BaseFiles:
    return resolve_base(str(mono_base))


def prepared(files: BaseFiles, data: Path, folder: Path, said: list[str], **more) -> Previews:
    settings = quick(preview={"every_steps": 1, "duration_sec": 0.4, **more}).preview
    made = Previews.prepare(files, PreparedDataset(data), settings, folder, said.append)
    assert made is not None
    return made


def test_previews_are_the_same_each_time_and_change_with_the_model(
    files: BaseFiles,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    previews = prepared(files, tiny_data, tmp_path / "samples", said, prompts=["solo piano", "drums <loud>"])
    lm = load_lm(files)
    base = previews.make(lm, 0)
    assert base == ["step-000000/01.flac", "step-000000/02.flac"] and said == []
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    previews.make(lm, 1)
    assert torch.equal(state, torch.get_rng_state())  # training's generators are left alone
    adapter = attach(lm, quick().lora, 0)
    lm.train()
    for name, weight in adapter.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    previews.make(lm, 2)
    assert lm.training and all(weight.requires_grad for weight in adapter.parameters().values())
    audio = [soundfile.read(tmp_path / "samples" / f"step-00000{step}" / "01.flac") for step in range(3)]
    assert audio[0][1] == 32000 and len(audio[0][0]) == 0.4 * 32000
    assert (audio[0][0] == audio[1][0]).all()
    assert (audio[0][0] != audio[2][0]).any()


def test_the_page_lists_every_prompt_with_its_steps(
    files: BaseFiles,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    previews = prepared(files, tiny_data, tmp_path, [], prompts=["drums <loud>"])
    lm = load_lm(files)
    for step in (2, 0, 2):
        previews.make(lm, step)
    pieces = by_prompt(read_previews(tmp_path))
    assert [(prompt, [p.step for p in found]) for prompt, found in pieces] == [("drums <loud>", [0, 2])]
    page = (tmp_path / "index.html").read_text()
    assert "drums &lt;loud&gt;" in page and page.count("<audio") == 2
    assert len(json.loads((tmp_path / "previews.json").read_text())) == 2


def test_a_failed_preview_says_why_and_ends_nothing(
    files: BaseFiles,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    previews = prepared(files, tiny_data, tmp_path / "samples", said)
    lm = load_lm(files)
    with torch.no_grad():
        lm.get_submodule("decoder.lm_heads.0").get_parameter("weight").fill_(float("nan"))
    assert previews.make(lm, 3) == []
    assert len(said) == 1 and said[0].startswith("no preview at step 3: ")
    assert read_previews(tmp_path / "samples") == []


def test_a_base_without_text_encoder_means_no_previews_but_no_failure(
    files: BaseFiles,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    empty = tmp_path / "base"
    empty.mkdir()
    (empty / "config.json").write_text((files.folder / "config.json").read_text())
    broken = BaseFiles("broken", None, empty)
    settings = quick(preview={"every_steps": 1}).preview
    assert Previews.prepare(broken, PreparedDataset(tiny_data), settings, tmp_path, said.append) is None
    assert said and said[0].startswith("no previews in this run: ")


def test_prompts_of_the_dataset_carry_the_trigger(tiny_data: Path) -> None:
    prompts = own_prompts(PreparedDataset(tiny_data))
    assert len(prompts) == 2 and all(TRIGGER in prompt for prompt in prompts)
    assert prompts == own_prompts(PreparedDataset(tiny_data))
