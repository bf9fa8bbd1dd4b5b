"""The peaks that the presets' headers state are those that are predicted of their settings, and fit the card named."""

import re

import pytest

from configs.layers import PRESETS, preset_names, resolve
from configs.train import TrainSettings
from finetune.commands.plan import spec_of_base
from finetune.memory.predict import GIB, predict
from finetune.memory.step_plan import step_plan

STATED = re.compile(r"predicted ([\d.]+) GiB of the card \(batch (\d+), (\d+) s clips, rank (\d+)")


@pytest.mark.parametrize("preset", [name for name in preset_names() if name.endswith("gb")])
def test_the_stated_peak_is_the_predicted_one(preset: str):
    settings = resolve("train", preset)
    assert isinstance(settings, TrainSettings)
    weights = "bf16" if settings.base_weights == "auto" else settings.base_weights
    plan = step_plan(settings, spec_of_base(settings), weights, "bf16", round(settings.max_clip_sec * 50))
    found = STATED.search((PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))
    assert found is not None
    assert [int(n) for n in found.groups()[1:]] == [plan.batch_size, settings.max_clip_sec, settings.lora.rank]
    needs = predict(plan).of_the_card / GIB
    assert float(found[1]) == pytest.approx(needs, abs=0.06)
    assert needs < 0.95 * int(preset.removesuffix("gb"))
