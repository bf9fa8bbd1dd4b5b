"""The cache, the lock and the process pool: damage reads as absence, only one run at a time, crashes stay contained."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data_prep.cache import Cache, work_key
from data_prep.lock import only_one
from data_prep.pool import CrashError, run_each, run_here
from data_prep.safe_write import written_beside

KEY = work_key(1, source="a", level=3)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_the_name_follows_every_input():
    assert work_key(1, source="a", level=3) == work_key(1, level=3, source="a") == KEY
    others = [work_key(2, source="a", level=3), work_key(1, source="b", level=3), work_key(1, source="a", level=4)]
    assert len({KEY, *others}) == 4


def test_values_come_back(cache):
    assert cache.read_json("things", KEY) is None and cache.read_tensors("things", KEY) is None
    cache.write_json("things", KEY, {"name": "zwölf\n\u2028", "list": [1.5, None]})
    cache.write_tensors("things", KEY, {"codes": np.arange(12, dtype=np.int16).reshape(3, 4)})
    assert cache.read_json("things", KEY) == {"name": "zwölf\n\u2028", "list": [1.5, None]}
    np.testing.assert_array_equal(cache.read_tensors("things", KEY)["codes"], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "junk"])
def test_a_damaged_entry_is_not_there(cache, suffix, damage):
    cache.write_json("things", KEY, {"list": list(range(50))})
    cache.write_tensors("things", KEY, {"codes": np.ones((4, 50), dtype=np.int16)})
    path = cache.path("things", KEY, suffix)
    data = path.read_bytes()
    flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    path.write_bytes(
        {"empty": b"", "cut": data[: len(data) // 2], "flipped": flipped, "junk": b"\xff\x00" * 40}[damage]
    )
    read = cache.read_json if suffix == ".json" else cache.read_tensors
    assert read("things", KEY) is None


def test_a_failed_write_leaves_nothing(cache, tmp_path):
    with pytest.raises(RuntimeError), written_beside(tmp_path / "file") as part:
        part.write_text("half")
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache"]


def test_leftovers_of_killed_runs_go(cache):
    (cache.folder / "things").mkdir()
    (cache.folder / "things" / ".x.json.99.part").write_text("half")
    (cache.folder / "dataset.99.part").mkdir()
    cache.write_json("things", KEY, 1)
    cache.claim()
    assert not list(cache.folder.rglob("*.part")) and cache.read_json("things", KEY) == 1


def test_the_tag_is_written_once_and_in_one_step(cache, monkeypatch):
    tag, synced = cache.folder / "CACHEDIR.TAG", []
    assert not Cache.is_one(cache.folder)
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, tag.exists())))
    cache.claim()
    assert Cache.is_one(cache.folder) and not Cache.is_one(cache.folder.parent)
    assert synced[0] == (tag.stat().st_size, False), "on the disk before it has its name"
    inode = tag.stat().st_ino
    cache.claim()
    assert tag.stat().st_ino == inode and len(synced) == 2  # the file and its name
    tag.write_text("")
    cache.claim()
    assert Cache.is_one(cache.folder) and not list(cache.folder.rglob("*.part"))


def test_two_at_once_are_refused_and_the_first_is_named(tmp_path):
    holder = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from data_prep.lock import only_one
        with only_one(Path({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(60)
    """)
    first = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {first.pid} "), only_one(tmp_path):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
        with only_one(tmp_path):  # a killed process holds nothing
            pass
    finally:
        first.kill()
        first.communicate()


def double_or_crash(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if value == 5:
        raise ValueError("five")
    return 2 * value


def test_a_crash_costs_one_input_only():
    results = dict(run_each(double_or_crash, range(8), workers=2))
    assert sorted(results) == list(range(8))
    assert isinstance(results.pop(3), CrashError) and isinstance(results.pop(5), ValueError)
    assert results == {n: 2 * n for n in (0, 1, 2, 4, 6, 7)}


@pytest.mark.parametrize("workers", [0, 1])
def test_one_input_alone_cannot_end_this_process_either(workers):
    ((index, result),) = run_each(double_or_crash, [3], workers)
    assert index == 0 and isinstance(result, CrashError)


def process_or_crash(value: int) -> int:
    if value == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return os.getpid()


def test_after_a_crash_the_rest_goes_on_together():
    results = dict(run_each(process_or_crash, range(40), workers=2))
    assert isinstance(results.pop(0), CrashError)
    assert len(results) == 39 and len(set(results.values())) <= 2 + 2, "two alone at most, then a new pool of two"


def test_in_this_process_errors_are_results_too():
    results = list(run_here(double_or_crash, [1, 5, 2]))
    assert [index for index, _ in results] == [0, 1, 2] and isinstance(results[1][1], ValueError)
    assert list(run_here(double_or_crash, [])) == list(run_each(double_or_crash, [], 2)) == []


def note_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_workers_end_with_their_killed_parent(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from data_prep.pool import run_each
        from test_cache import note_and_sleep
        if __name__ == "__main__":
            list(run_each(note_and_sleep, [Path({str(tmp_path)!r})] * 2, workers=2))
    """)
    program = tmp_path.parent / f"{tmp_path.name}-parent.py"
    program.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, str(program)], env=environment)
    assert waited(lambda: len(list(tmp_path.iterdir())) == 2, seconds=30)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert waited(lambda: not any(alive(pid) for pid in workers), seconds=10)


def waited(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
