"""The ports' test: a family that no line of the product knows, from songs to a merged model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from toy_family import CARD, HOP, RATE_HZ, ToyLM, register_toy, write_toy_base
from training_fixtures import quick

from adapters import adapter_files
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.merge import merge
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.prep import PrepSettings
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.prepare import prepare
from data_prep.prepared import PreparedDataset
from finetune.train import train

SETTINGS = {
    "lora": {"rank": 2, "targets": ["recurrence", "text"]},
    "optim": {"lr": 0.01, "schedule": "constant", "warmup_steps": 0},
}


pytestmark = pytest.mark.usefixtures("prep_in_this_process")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register_toy()
    return write_toy_base(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture(scope="module")
def data(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    songs = tmp_path_factory.mktemp("songs")
    for number in range(3):
        time = np.arange(RATE_HZ * 7) / RATE_HZ
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * time) * (1 + np.sin(2 * np.pi * (2 + number) * time)) / 2
        soundfile.write(songs / f"{number}.wav", tone, RATE_HZ)
    out = songs.parent / f"{songs.name}-data"
    captions: Any = {"trigger": "in toy style", "listeners": {"use": []}}
    prepare(songs, out, PrepSettings.model_validate({"base": str(base), "captions": captions, "workers": 1}))
    return out


@pytest.fixture(scope="module")
def adapter(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("runs") / "run", quick(**SETTINGS, steps=4))


def test_prep_speaks_its_codec(data: Path) -> None:
    dataset = PreparedDataset(data)
    assert dataset.info["codec"]["frame_rate"] == RATE_HZ / HOP == 25
    for row in dataset.clips():
        codes = dataset.codes(row.id)
        assert codes.shape == (3, row.n_frames) and row.n_frames == pytest.approx(row.duration_sec * 25, abs=1)
        assert codes.max() < CARD and "in toy style" in row.captions[0]
        level = dataset.condition("level", row.id)
        assert level is not None and level.shape == (row.n_frames, 1) and 0 < level.mean() < 1


def test_training_leaves_an_adapter_of_its_modules(adapter: Path) -> None:
    loaded = adapter_files.load(adapter)
    assert set(loaded.updates) == {"text", *(f"layers.{n}.{part}" for n in (0, 1) for part in ("inward", "onward"))}
    assert loaded.woodshed is not None and loaded.woodshed.base.family == "toy"
    card = (adapter / "README.md").read_text()
    assert "recurrence" in card and "Musicgen" not in card and "woodshed sample" in card


def test_resume_is_exact(data: Path, adapter: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", quick(**SETTINGS, steps=2))
    resumed = train(data, tmp_path / "run", quick(**SETTINGS, steps=4), resume=True)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (resumed, adapter))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


def sampler(base: Path, adapter: Path | None = None, *, strength: float = 1.0, **more: Any) -> Sampler:
    settings = SampleSettings.model_validate({"duration_sec": 2.0, "precision": "fp32", **more})
    specs = [] if adapter is None else [AdapterSpec(adapter, StrengthSchedule.constant(strength))]
    return Sampler.load(resolve_base(str(base)), specs, settings)


def test_sample_with_windows_and_merge_agree(base: Path, adapter: Path, tmp_path: Path) -> None:
    how: Any = {"window_sec": 1.0, "overlap_sec": 0.4}
    player = sampler(base, adapter, strength=8.0, **how)
    takes = player.sample(["a tone, in toy style", "noise"])
    assert [take.waveform.shape for take in takes] == [(1, 2 * RATE_HZ)] * 2
    assert [take.codes.shape for take in takes] == [(3, 50)] * 2
    files = resolve_base(str(base))
    merge(files, [(adapter_files.load(adapter), 8.0)], tmp_path / "merged")
    merged = sampler(tmp_path / "merged", **how).codes(["a tone, in toy style"])[0]
    np.testing.assert_array_equal(merged, takes[0].codes)
    assert (sampler(base, **how).codes(["a tone, in toy style"])[0] != merged).any()


def test_stream_is_the_sampled_piece_and_strength_can_change(base: Path, adapter: Path) -> None:
    player = sampler(base, adapter)
    whole = player.sample(["a tone"], seeds=[3])[0].waveform
    with player.stream("a tone", seed=3) as music:
        torch.testing.assert_close(torch.cat(list(music), dim=1), whole)
    spec = AdapterSpec(adapter, StrengthSchedule.constant(0.0))
    settings = SampleSettings.model_validate({"duration_sec": 2.0, "precision": "fp32"})
    live = Sampler.load(resolve_base(str(base)), [spec], settings, live=True)
    np.testing.assert_array_equal(live.codes(["a tone"])[0], sampler(base).codes(["a tone"])[0])
    live.set_strength("run", 40.0)
    assert (live.codes(["a tone"])[0] != sampler(base).codes(["a tone"])[0]).any()


def test_its_own_condition_is_followed(base: Path) -> None:
    player = sampler(base, window_sec=1.0, overlap_sec=0.4)
    plain, null = (player.codes(["a tone"], also=also)[0] for also in (None, [{}]))
    loud = player.codes(["a tone"], also=[{"level": torch.full((50, 1), 30.0)}])[0]
    rising = player.codes(["a tone"], also=[{"level": torch.cat([torch.zeros(25, 1), torch.full((25, 1), 30.0)])}])[0]
    np.testing.assert_array_equal(plain, null)
    assert (loud[:, :20] != plain[:, :20]).any() and (rising[:, 26:] != plain[:, 26:]).any()


def test_likelihoods_and_levels_of_the_slow_engine(base: Path) -> None:
    player = sampler(base)
    codes = torch.from_numpy(player.codes(["a tone"])[0].astype(np.int64))
    told = player.encode(["a tone"])[0]
    from adapters.conditions import batch_conditions

    conditions = batch_conditions([{"text": told}], player.engine.spec)
    found = player.engine.log_likelihoods(codes, conditions)
    assert found.shape == codes.shape and bool((found < 0).all())
    lm: Any = player.engine.lm  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(lm, ToyLM)
    inputs, labels = lm.inputs_and_labels(codes[None], torch.tensor([codes.shape[1]]))
    expected = lm(inputs, conditions).log_softmax(-1).gather(-1, labels[..., None])[0, ..., 0]
    torch.testing.assert_close(found, expected)


def test_what_it_does_not_have_is_said(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no target group `attention`(.|\n)*recurrence"):
        train(data, tmp_path / "run", quick())
    with pytest.raises(UserError, match="cannot be predicted"):
        train(data, tmp_path / "other", quick(**SETTINGS, memory="8gb"))
    told = json.loads((data / "clips.jsonl").read_text().splitlines()[0])
    assert told["n_frames"] > 0
