"""Prep over Ray, with real Ray processes on this machine: the dataset of a single process, to the byte."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.listeners import ListenerSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from data_prep import cluster
from data_prep.cluster import SONGS_PER_TASK, beginning, shares
from data_prep.prepare import prepare
from data_prep.song_file import SongFile
from data_prep.write_audio import write_audio

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """Two workers that know this folder's modules."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    root = Path(__file__).resolve().parent.parent
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_worker_niceness", "0")  # beside other tests a nice worker would never have its turn
    patch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()
    patch.undo()


def write_songs(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    time_sec = np.arange(7 * RATE_HZ) / RATE_HZ
    for number in range(2):
        tune = sum(np.sin(2 * np.pi * hz * time_sec) for hz in rng.uniform(100, 900, 4)) / 8
        beat = np.exp(-8 * (time_sec % 0.5))
        write_audio(folder / f"song {number}.wav", np.stack([tune * beat, tune * beat]).astype(np.float32), RATE_HZ)
    (folder / "song 1.txt").write_text("a tune of my own")
    (folder / "broken.wav").write_bytes(b"RIFF....WAVE")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """All but the page: every Ogg file in its players has a serial number of its own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts and path.name != "report.html"
    }


@pytest.mark.usefixtures("prep_in_this_process")
def test_the_same_dataset_as_from_one_process(
    ray, mono_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths hold for the workers too
    songs = write_songs(tmp_path / "songs").relative_to(tmp_path)
    settings = PrepSettings(
        base=str(mono_base),
        segment=SegmentSettings(max_sec=3.0, min_sec=2.0),
        captions=CaptionSettings(trigger="in the style of mine", listeners=ListenerSettings(use=[])),
        workers=1,
    )
    alone = prepare(songs, Path("alone"), settings)
    capfd.readouterr()
    spread = prepare(songs, Path("spread"), settings.model_copy(update={"cluster": "ray"}))
    said = capfd.readouterr().err
    assert len(spread.rows) == len(alone.rows) == 6
    assert files_of(tmp_path / "spread") == files_of(tmp_path / "alone")
    assert "songs on 1 machine: 3 songs" in said
    assert "codec tokens: 6 clips, 6 of them done before" in said  # the workers did it


def test_what_a_task_refuses_is_said_as_by_prep(ray, tmp_path: Path) -> None:
    """Also that a machine does not see the songs."""
    song = SongFile(tmp_path / "elsewhere" / "song.wav", "song.wav")
    with pytest.raises(UserError, match="does not see") as caught:
        cluster.prepare_on_ray([song], PrepSettings(base="debug"), tmp_path)
    assert str(song.path) in str(caught.value)


def test_a_task_that_crashes_leaves_its_songs_to_prep(ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_work_on", lambda *given: __import__("os")._exit(1))
    cluster.prepare_on_ray([SongFile(tmp_path / "song.wav", "song.wav")], PrepSettings(base="debug"), tmp_path)


def test_songs_are_shared_out_once_and_in_order() -> None:
    songs = [SongFile(Path(f"folder {number // 3}/{number}.wav"), f"{number}.wav") for number in range(100)]
    for workers in (1, 4, 64):
        for by_folder in (False, True):
            parts = shares(songs, workers, by_folder)
            assert [song for part in parts for song in part] == songs
            if by_folder:
                folders = [{song.path.parent for song in part} for part in parts]
                assert sum(map(len, folders)) == len(set().union(*folders))
    assert len(shares(songs, 4, False)) >= 16 and shares([], 4, False) == []


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"woodshed\[cluster\]"):
        cluster.prepare_on_ray([], PrepSettings(base="debug"), tmp_path)


def test_few_songs_and_the_wait_for_ray_are_said() -> None:
    assert beginning(SONGS_PER_TASK + 1, ours=False) == []
    waiting, few = beginning(1, ours=True)
    assert "starting Ray" in waiting and few.startswith("1 song only") and "without --cluster" in few
