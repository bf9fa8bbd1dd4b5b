"""The trigger: alone as a caption, told from other words from the start, and what is decided where nothing is asked."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from training_fixtures import TRIGGER, quick

from adapters.family.load import load_lm
from adapters.lora import attach
from adapters.lora_start import telling_directions
from configs.train import LoraSettings, TrainSettings
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from finetune.batches import Clip, Stream, clips_of
from finetune.judge.plan import FOREIGN
from finetune.prior import SHARE, with_prior
from finetune.prior_prompts import other_music, prompts_for
from finetune.trigger_start import LOUDNESS, start_from_trigger

CLIPS = [Clip(f"clip{n:02}", 40, ("loud, in my style", "fast, in my style"), ("loud", "fast")) for n in range(20)]


def test_some_captions_give_way_to_the_trigger_alone() -> None:
    shared = {"seed": 1, "max_frames": 40, "condition_dropout": 0.2, "prior_share": 0.5}
    plain = Stream(CLIPS, **shared).step(0, 400)
    draws = Stream(CLIPS, **shared, trigger="in my style", trigger_alone=0.3).step(0, 400)
    changed = [(ours, before) for ours, before in zip(draws, plain, strict=True) if ours != before]
    taught = [draw for draw in draws if not draw.prior and draw.caption]
    assert {ours.caption for ours, _ in changed} == {"in my style"}
    assert all(not before.prior and before.caption for _, before in changed), "what holds on to the base is as before"
    assert 0.2 < len(changed) / len(taught) < 0.4


def test_directions_tell_what_others_do_not_have() -> None:
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(200, 12, generator=generator) * torch.linspace(4, 0.1, 12)
    said = torch.cat([other[:60], torch.randn(20, 12, generator=generator) + 3.0 * torch.eye(12)[9]])
    found = telling_directions(said, other, 3)
    assert found.shape == (3, 12)
    assert_close((said @ found.T).square().mean(0), torch.ones(3))
    ratio = (said @ found.T).square().mean(0) / (other @ found.T).square().mean(0)
    assert ratio[0] > 4 and (ratio.diff() <= 1e-4).all(), "the most telling one comes first"
    drawn = torch.randn(100, 12, generator=generator)
    assert ratio[0] > 3 * ((said @ drawn.T).square().mean(0) / (other @ drawn.T).square().mean(0)).median()
    assert_close(telling_directions(said[torch.randperm(80)], other, 3), found, rtol=1e-3, atol=1e-4)


def test_an_adapter_starts_from_them_and_changes_nothing(mono_base: Path, tiny_data: Path) -> None:
    dataset = PreparedDataset(tiny_data)
    clips, settings = clips_of(dataset, "train"), LoraSettings(rank=4, alpha=4.0)
    adapter = attach(load_lm(resolve_base(str(mono_base))), settings, 0)
    before = adapter.tensors()
    changed = start_from_trigger(adapter, clips, dataset, [], 3)
    after = adapter.tensors()
    assert changed == ["enc_to_dec_proj"]
    different = {name for name in after if not torch.equal(after[name], before[name])}
    assert different == {"enc_to_dec_proj.lora_A.weight"}, "B is zero still: the base plays as it would alone"
    rows = after["enc_to_dec_proj.lora_A.weight"]
    assert_close(rows[2:], before["enc_to_dec_proj.lora_A.weight"][2:])  # half of the rows at most
    captions = sorted({caption for clip in clips for caption in clip.captions})
    said = torch.cat([torch.from_numpy(dataset.text_state(text).copy()) for text in captions]).float()
    assert_close((said @ rows[:2].T).square().mean(0), torch.full((2,), LOUDNESS**2), rtol=1e-3, atol=1e-3)
    without = [Clip(clip.id, clip.n_frames, clip.bare, clip.bare) for clip in clips]
    assert start_from_trigger(adapter, without, dataset, [], 3) == []
    assert start_from_trigger(adapter, clips, dataset, [], 0) == []


def test_what_is_decided_where_nothing_is_asked(tiny_data: Path, tmp_path: Path) -> None:
    def decided(folder: Path, **asked) -> TrainSettings:
        dataset = PreparedDataset(folder)
        return with_prior(TrainSettings(**asked), dataset, clips_of(dataset, "train"))

    assert (decided(tiny_data).prior_share, decided(tiny_data).trigger_alone) == (SHARE, TrainSettings().trigger_alone)
    assert decided(tiny_data, prior_share=0.0).prior_share == 0
    assert decided(tiny_data, prior_share=0.2).prior_share == 0.2
    bare = Path(shutil.copytree(tiny_data, tmp_path / "without a trigger"))
    info = (bare / "prep.yaml").read_text()
    (bare / "prep.yaml").write_text(info.replace(f"trigger: {TRIGGER}", "trigger: ''"))
    assert (decided(bare).prior_share, decided(bare).trigger_alone) == (0, 0)
    old = Path(shutil.copytree(tiny_data, tmp_path / "old"))
    dataset = PreparedDataset(old)
    said = {dataset._state_path(caption).name for row in dataset.clips() for caption in row.captions}
    for path in (old / "text_states").iterdir():
        if path.name not in said:
            path.unlink()
    assert (decided(old).prior_share, decided(old).trigger_alone) == (0, 0), "prepared before these were kept"


def test_prompts_of_other_music() -> None:
    own = ["loud", "fast"]
    found = prompts_for(TrainSettings(), own, TRIGGER)
    assert len(found) == 64 and found == prompts_for(TrainSettings(), list(reversed(own)), TRIGGER)
    assert [found.count(text) for text in own] == [4, 4]
    others = [text for text in found if text not in own]
    assert len(set(others)) == len(others) == 56 and not set(others) & set(FOREIGN), "judged by what it was not shown"
    assert any("no drums" in text for text in others) and any("with drums" in text for text in others)
    given = TrainSettings(prior_prompts=["a", "b"], prior_pieces=5)
    assert prompts_for(given, own, TRIGGER) == ["a", "b", "a", "b", "a"]
    kind = next(other_music()).split(",")[0]
    assert not any(kind in text for text in prompts_for(TrainSettings(), own, kind))


def test_the_defaults_run(tiny_data: Path, tmp_path: Path) -> None:
    """From a dataset with a trigger to an adapter, with nothing asked for about trigger or prior."""
    from finetune.prior_pieces import load
    from finetune.run_log import read_log
    from finetune.train import train

    settings = quick(steps=3).model_dump(exclude={"prior_share"}) | {"prior_pieces": 4}
    train(tiny_data, tmp_path / "run", TrainSettings.model_validate(settings))
    assert len(load(tmp_path / "run" / "prior_pieces.safetensors").prompts) == 4
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "step"]
    assert any("prior" in line for line in lines)
    train(tiny_data, tmp_path / "run", TrainSettings(steps=4), resume=True)


@pytest.mark.parametrize("share", [None, 0.3])
def test_prior_prompts_need_a_share(share: float | None, tiny_data: Path) -> None:
    dataset = PreparedDataset(tiny_data)
    settings = TrainSettings(prior_prompts=["slow piano"], prior_share=share)
    assert with_prior(settings, dataset, clips_of(dataset, "train")).prior_share == (share or SHARE)
