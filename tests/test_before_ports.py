"""An adapter and a dataset that were made before models had ports still load, and give the very same numbers.

tests/references/before_ports was written by the version before, on the `debug` base: a dataset of three clips, an
adapter trained on it, its logits on the held-out clip (every fourth step) and a piece that it played.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from adapters import adapter_files
from adapters.conditions import batch_conditions
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.family.load import load_lm
from adapters.fit import check_fit
from adapters.lora import attach_updates
from adapters.sampler import AdapterSpec, Sampler
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.prepared import PreparedDataset
from finetune import dataset_fit

FOLDER = Path(__file__).parent / "references" / "before_ports"


@pytest.fixture(scope="module")
def files() -> BaseFiles:
    return resolve_base("debug")


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(FOLDER / "expected.safetensors")


def test_the_same_logits(files: BaseFiles, expected: dict[str, Tensor]) -> None:
    dataset, adapter = PreparedDataset(FOLDER / "dataset"), adapter_files.load(FOLDER / "adapter")
    dataset_fit.check_fit(dataset, files)
    assert check_fit(adapter, files) == []
    assert adapter.woodshed is not None and adapter.woodshed.base.family == "musicgen"
    lm = load_lm(files)
    attach_updates(lm, adapter.updates)
    row = dataset.clips("validation")[0]
    codes = torch.tensor(dataset.codes(row.id)).long()[None]
    text = torch.tensor(dataset.text_state(row.captions[0]))
    inputs, _ = lm.inputs_and_labels(codes, torch.tensor([row.n_frames]))
    with torch.no_grad():
        logits = lm(inputs, batch_conditions([{"text": text}], lm.spec))[0, :, ::4]
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-5)
    bare = load_lm(files)
    with torch.no_grad():
        assert (bare(inputs, batch_conditions([{"text": text}], bare.spec))[0, :, ::4] - logits).abs().max() > 1e-3


def test_the_same_piece(files: BaseFiles, expected: dict[str, Tensor]) -> None:
    how = {"duration_sec": 1.0, "precision": "fp32", "window_sec": 0.6, "overlap_sec": 0.2}
    spec = AdapterSpec(FOLDER / "adapter", StrengthSchedule.constant(1.0))
    sampler = Sampler.load(files, [spec], SampleSettings.model_validate(how))
    played = sampler.codes(["slow piano, in the style of tests"], seeds=[5])[0]
    np.testing.assert_array_equal(played, expected["played"].numpy())
