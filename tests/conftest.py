"""Shared by all tests: no network, shapes checked at run time, and the debug bases."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow down whatever runs beside the tests
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker with a pool of all cores: they wait for each other

import pytest
from jaxtyping import install_import_hook

install_import_hook(["configs", "data_prep", "adapters", "finetune"], "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing is left in, or read from, the cache folder of the person who runs the tests."""
    folder = tmp_path_factory.mktemp("woodshed-cache")
    os.environ["WOODSHED_CACHE"] = str(folder)
    return folder


@pytest.fixture
def fresh_processes() -> Iterator[None]:
    """Accelerate allows one arithmetic per process: a test that asks for this is a process of its own."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def mono_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random mono MusicGen in the hub's format."""
    from data_prep.debug_base import write_debug_base

    return write_debug_base(tmp_path_factory.mktemp("bases") / "mono")


@pytest.fixture(scope="session")
def stereo_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random stereo MusicGen in the hub's format."""
    from data_prep.debug_base import write_debug_base

    return write_debug_base(tmp_path_factory.mktemp("bases") / "stereo", audio_channels=2)


@pytest.fixture(scope="session")
def tiny_data(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of five short clips to learn from and two held out, for the mono base."""
    from training_fixtures import write_dataset

    return write_dataset(tmp_path_factory.mktemp("data") / "mono", mono_base)
