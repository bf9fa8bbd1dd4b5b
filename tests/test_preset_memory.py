"""What the presets' headers state is what the planner chooses for them, and it fits the card named."""

import re

import pytest

from configs.layers import PRESETS, preset_names, resolve
from configs.train import TrainSettings
from finetune.commands.plan import spec_of_base
from finetune.memory.auto import cap_of, fit_settings
from finetune.memory.cost import Machine
from finetune.memory.fit import recomputed_words
from finetune.memory.predict import GIB

STATED = re.compile(r"predicted ([\d.]+) GiB .*batch (\d+), (\d+) s clips, rank (\d+); (.*) layers")
MACHINES = {"usual": Machine(), "slow": Machine(layer_sec=4e-3, recompute_sec=4e-3)}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("preset", [name for name in preset_names() if name.endswith("gb")])
def test_the_stated_plan_is_the_one_that_is_chosen(preset: str, machine: Machine):
    settings = resolve("train", preset)
    assert isinstance(settings, TrainSettings) and settings.memory is not None
    spec = spec_of_base(settings)
    longest = round(settings.max_clip_sec * spec.frame_rate)
    option = fit_settings(settings, spec, longest, "bf16", cap_of(settings.memory, "cuda"), machine).option
    found = STATED.search((PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))
    assert found is not None
    chosen = [option.plan.batch_size, settings.max_clip_sec, settings.lora.rank]
    assert [int(n) for n in found.groups()[1:4]] == chosen and option.plan.weights == "bf16"
    assert found[5] == recomputed_words(option.plan)
    needs = option.memory.of_the_card / GIB
    assert float(found[1]) == pytest.approx(needs, abs=0.06)
    assert needs <= 0.95 * int(preset.removesuffix("gb"))
