"""Shared by all tests: no network, shapes checked at run time, and the debug bases."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow down whatever runs beside the tests
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker with a pool of all cores: they wait for each other

import pytest
from sparing_checks import install

gc.disable()  # until all is imported: nothing of it is ever free
install(["configs", "data_prep", "adapters", "finetune"])


MANY_MODULES = 100
_seen = {"modules": 0}


def pytest_collection_finish() -> None:
    """Half a million objects of modules and tests are set aside: else every look for garbage goes through them all,
    and a run of six steps spends half its time there.
    """
    gc.enable()
    _set_aside()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Again when a file has ended, after its own fixtures are gone, and when a test has imported much."""
    yield
    if nextitem is None or nextitem.path != item.path or len(sys.modules) > _seen["modules"] + MANY_MODULES:
        _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()
    _seen["modules"] = len(sys.modules)


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


@pytest.fixture(scope="module")
def prep_in_this_process() -> Iterator[None]:
    """Starting other processes costs seconds each time. See test_prep_command for a run as it is."""
    from data_prep import clip_features, track_sound, tracks
    from data_prep.pool import run_here

    with pytest.MonkeyPatch.context() as patch:
        for module in (tracks, track_sound, clip_features):
            patch.setattr(module, "run_each", lambda function, inputs, workers: run_here(function, inputs))
        yield


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
