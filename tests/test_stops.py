"""Ctrl-C and SIGTERM, once and twice, as a terminal sends them: words or nothing, never a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.write_audio import write_audio

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to process groups")


def start(*words: str, code: str = "") -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal has it."""
    program = (
        code or f"import sys; from finetune.cli import main; sys.argv[1:] = {list(words)!r}; raise SystemExit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        cwd=ROOT,
    )


def end(process: subprocess.Popen[str], *signals: signal.Signals, pause_sec: float = 0.3) -> str:
    """Send signals to the whole group; what was said on stderr."""
    for number in signals:
        if process.poll() is None:
            os.killpg(process.pid, number)
            time.sleep(pause_sec)
    said = process.communicate(timeout=60)[1]
    assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    return said


COMMAND = """
import sys, time
from finetune import cli
from finetune.commands import adapters
def run(args, settings):
    try:
        print("begun", file=sys.stderr, flush=True)
        time.sleep(60)
    finally:
        print("cleaning", file=sys.stderr, flush=True)
        time.sleep(CLEAN_UP)
adapters.run = run
sys.argv[1:] = ["adapters"]
raise SystemExit(cli.main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_once_is_an_end_in_words(number: signal.Signals, code: int) -> None:
    process = start(code=COMMAND.replace("CLEAN_UP", "0"))
    assert process.stderr is not None and process.stderr.readline() == "begun\n"
    assert "stopped" in end(process, number) and process.returncode == code


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_twice_is_an_end_at_once(first: signal.Signals, second: signal.Signals) -> None:
    process = start(code=COMMAND.replace("CLEAN_UP", "60"))
    assert process.stderr is not None and process.stderr.readline() == "begun\n"
    begun = time.monotonic()
    os.killpg(process.pid, first)
    assert process.stderr.readline() == "cleaning\n"  # a second signal that comes at once may be one with the first
    assert end(process, second) == ""
    assert process.returncode == -second and time.monotonic() - begun < 20


def test_a_signal_inside_a_destructor_is_not_lost() -> None:
    """Python drops an exception that is raised there."""
    code = """
import signal, time
from finetune.stop import Interrupted, stop_in_words
stop_in_words()
class Ends:
    def __del__(self): signal.raise_signal(signal.SIGTERM); sum(range(10))
try:
    Ends()
    time.sleep(20)
except Interrupted as stop:
    print("stopped", stop.code)
"""
    process, begun = start(code=code), time.monotonic()
    said, complaint = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20, "it slept to the end"
    assert said == "stopped 143\n" and complaint == "" and process.returncode == 0


def test_training_hears_the_second_signal_of_any_kind() -> None:
    code = """
import signal, sys, time
from finetune.stop import StopWish, stop_in_words
stop_in_words()
with StopWish() as wish:
    print("begun", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.05)
"""
    for first, second in ((signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)):
        process = start(code=code)
        assert process.stderr is not None and process.stderr.readline() == "begun\n"
        os.killpg(process.pid, first)
        time.sleep(0.3)
        assert process.poll() is None, "the first is a wish"
        assert end(process, second) == "" and process.returncode == -second


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 2, [signal.SIGTERM, signal.SIGINT]]
)
@pytest.mark.parametrize("after_sec", [1.0, 4.0])
def test_prep_is_stopped_and_goes_on(tmp_path: Path, signals: list[signal.Signals], after_sec: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 32_000 * 20)).astype(np.float32)
    for number in range(12):
        write_audio(tmp_path / "songs" / f"{number}.wav", np.roll(noise, number * 999), 32_000)
    process = start("prep", str(tmp_path / "songs"), str(tmp_path / "data"), "--base", "debug", "--workers", "2")
    time.sleep(after_sec)
    said = end(process, *signals, pause_sec=0.05)
    codes = {*(-number for number in signals), *(128 + number for number in signals)}
    assert process.returncode in codes | {0}, said
    if process.returncode == 0:
        pytest.skip("this machine was done before it was stopped")
    if len(signals) == 1 and "read files" in said:
        assert "the same command goes on from here" in said
    assert not (tmp_path / "data" / "prep.yaml").exists()
