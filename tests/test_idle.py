"""How long the device waits: gaps between micro-batches are counted, work is not."""

import time

import pytest
import torch

from finetune import idle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def micro_batch(watch: idle.Idle, clock: list[float], wait_sec: float, work_sec: float) -> None:
    clock[0] += wait_sec
    watch.begin()
    clock[0] += work_sec
    watch.end()


def test_gaps_add_up_and_work_does_not_count(clock: list[float]):
    watch = idle.Idle(torch.device("cpu"))
    watch.end()  # a step begins
    micro_batch(watch, clock, 0.25, 10.0)
    micro_batch(watch, clock, 0.5, 20.0)
    assert watch.take_sec() == pytest.approx(0.75)
    assert watch.take_sec() == 0


def test_what_happens_between_steps_is_not_waiting_for_clips(clock: list[float]):
    watch = idle.Idle(torch.device("cpu"))
    for _ in range(2):
        watch.end()
        micro_batch(watch, clock, 0.125, 1.0)
        clock[0] += 60  # the optimizer, a preview, a checkpoint
    assert watch.take_sec() == pytest.approx(0.25)
