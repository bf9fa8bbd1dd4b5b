"""Thousands of spoilt adapters: each is used or refused in plain words. No crash, no hang, nothing written elsewhere,
memory bounded. A failing seed is in the message, and reproduces alone.
"""

import random
import resource
import shutil
import sys
import time
from pathlib import Path

import pytest
from adapter_fixtures import write_adapter
from mutations import BYTES, mutate_folder

from adapters import adapter_files
from adapters.bundle import pack, unpack
from adapters.card import card
from adapters.convert.kohya import from_kohya, to_kohya
from adapters.describe import describe
from adapters.registry import list_adapters
from configs.errors import UserError

MAX_SEC, MAX_GROWTH_MIB = 20.0, 400
"""Of one case on a busy machine, and of the whole process over all of them."""


@pytest.fixture(scope="module")
def sound(mono_base, tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("sound") / "mine", mono_base, dora=True)


@pytest.fixture(scope="module")
def files(sound, tmp_path_factory):
    """The same adapter as a bundle and in kohya's layout."""
    folder = tmp_path_factory.mktemp("files")
    pack(sound, folder / "bundle.zip")
    to_kohya(adapter_files.load(sound), folder / "kohya.safetensors")
    return folder


def read_folder(folder: Path) -> None:
    adapter = adapter_files.load(folder)
    told = describe(adapter)
    assert told["size"]["modules"] == len(adapter.updates)
    if adapter.woodshed is not None:
        assert len(card(adapter.woodshed, adapter.updates)) < 10**6


def spoil_folder(rng: random.Random, sound: Path, place: Path) -> None:
    folder = shutil.copytree(sound, place / "mutated")
    mutate_folder(rng, folder)
    (listed,) = list_adapters([folder]) or [None]
    assert listed is None or len(listed.problem) < 2000
    read_folder(folder)


def spoil_bundle(rng: random.Random, files: Path, place: Path) -> None:
    data = (files / "bundle.zip").read_bytes()
    for _ in range(rng.choice([1, 1, 2])):
        data = rng.choice(BYTES)(rng, data)
    if rng.random() < 0.3:  # the end, where a zip keeps its directory
        data = data[:-300] + BYTES[0](rng, data[-300:])
    (place / "in.zip").write_bytes(data)
    try:
        unpack(place / "in.zip", place / "out")
    finally:
        assert {path.name for path in place.iterdir()} <= {"in.zip", "out"}
    read_folder(place / "out")


def spoil_kohya(rng: random.Random, files: Path, place: Path) -> None:
    data = (files / "kohya.safetensors").read_bytes()
    (place / "x.safetensors").write_bytes(rng.choice(BYTES)(rng, data))
    from_kohya(place / "x.safetensors")


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run_cases(spoil, source: Path, tmp_path: Path, seeds: range) -> dict[str, int]:
    """Every seed's case, in a folder of its own; how many were used and how many refused."""
    outcomes = {"used": 0, "refused": 0}
    outside = tmp_path / "outside"
    outside.mkdir()
    before = peak_mib()
    for seed in seeds:
        place = tmp_path / "case" / "deep" / "inside"
        place.mkdir(parents=True)
        started = time.monotonic()
        try:
            spoil(random.Random(seed), source, place)
            outcomes["used"] += 1
        except UserError as error:
            assert 0 < len(str(error)) < 3000, f"seed {seed}"
            outcomes["refused"] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        assert time.monotonic() - started < MAX_SEC, f"seed {seed} took too long"
        assert sorted(p.name for p in (tmp_path / "case" / "deep").iterdir()) == ["inside"], f"seed {seed}"
        assert not list(outside.iterdir()), f"seed {seed}"
        shutil.rmtree(tmp_path / "case")
    assert peak_mib() - before < MAX_GROWTH_MIB
    return outcomes


CASES = {"folder": (spoil_folder, 300), "bundle": (spoil_bundle, 200), "kohya": (spoil_kohya, 150)}


@pytest.mark.parametrize("kind", CASES)
def test_spoilt_adapters(kind, sound, files, tmp_path):
    spoil, n_cases = CASES[kind]
    outcomes = run_cases(spoil, sound if kind == "folder" else files, tmp_path, range(n_cases))
    assert outcomes["refused"] > 0.3 * n_cases
    assert outcomes["used"] > 0, "mutations that hurt nothing must pass, or only the first check is tested"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_many_more_spoilt_adapters(kind, sound, files, tmp_path):
    spoil, n_cases = CASES[kind]
    run_cases(spoil, sound if kind == "folder" else files, tmp_path, range(10**6, 10**6 + 50 * n_cases))


def test_a_case_that_crashes_would_be_seen(sound, tmp_path):
    def spoil(rng: random.Random, source: Path, place: Path) -> None:
        raise KeyError("oh")

    with pytest.raises(KeyError) as caught:
        run_cases(spoil, sound, tmp_path, range(7, 8))
    assert caught.value.__notes__ == ["seed 7"]


def test_writing_elsewhere_would_be_seen(sound, tmp_path):
    def spoil(rng: random.Random, source: Path, place: Path) -> None:
        (place.parent / "escaped").touch()

    with pytest.raises(AssertionError, match="seed 0"):
        run_cases(spoil, sound, tmp_path, range(1))
