import pytest

from configs.layers import PRESETS, preset_names, resolve
from configs.prep import PrepSettings
from configs.train import TrainSettings

SECTIONS = ("prep", "train", "sample", "live")


def settings_of(preset: str) -> tuple[PrepSettings, TrainSettings]:
    prep, train = resolve("prep", preset), resolve("train", preset)
    assert isinstance(prep, PrepSettings)
    assert isinstance(train, TrainSettings)
    return prep, train


def test_these_presets_are_there():
    assert preset_names() == ["6gb", "8gb", "10gb", "16gb", "24gb", "cpu-debug"]


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("section", SECTIONS)
def test_each_loads(preset, section):
    resolve(section, preset)


@pytest.mark.parametrize("preset", preset_names())
def test_each_states_a_difference(preset):
    assert resolve("train", preset) != TrainSettings()


@pytest.mark.parametrize("preset", preset_names())
def test_each_opens_with_command_hardware_memory_time_and_result(preset):
    header = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Command", "Hardware", "Memory", "Time", "Expect"):
        assert f"\n# {word} " in header, word
    assert f"--preset {preset}" in header


@pytest.mark.parametrize("preset", preset_names())
def test_data_is_prepared_for_the_base_that_is_trained(preset):
    prep, train = settings_of(preset)
    assert train.base == prep.base


def test_gpu_presets_learn_from_equally_many_clips_a_step():
    totals = {}
    for preset in preset_names():
        _, train = settings_of(preset)
        totals[preset] = train.batch_size * train.accumulation
    totals.pop("cpu-debug")
    assert set(totals.values()) == {TrainSettings().batch_size * TrainSettings().accumulation}, totals


def test_the_debug_preset_needs_no_gpu_and_no_download():
    prep, train = settings_of("cpu-debug")
    assert (prep.base, prep.device, train.device) == ("debug", "cpu", "cpu")
    assert 0 < train.steps <= 50
    assert train.lora.rank <= 4
