"""Which evaluation is the best so far."""

from math import inf, nan
from types import SimpleNamespace
from typing import Any

from finetune.checkpoint import Position
from finetune.run import Run


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    said: list[str] = []
    run: Any = SimpleNamespace(write=lambda *_: None, progress=SimpleNamespace(say=said.append))
    position = Position(base_loss=[3.0, 3.0])
    better = []
    for step, losses in enumerate([[nan, 1.0], [2.0, 2.0], [inf, 0.0], [2.5, 2.5], [1.0, 2.0], [nan, nan]], start=1):
        position.step = step
        better.append(Run.judge(run, position, losses))
    assert better == [False, True, False, False, True, False]
    assert (position.best_step, position.best_loss, position.without_better) == (5, [1.0, 2.0], 1)
