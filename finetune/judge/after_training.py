"""`train --evaluate`: the verdict at the end of a run, where it costs little next to the run itself.

Called when training has let its model go and the adapter is written. What it costs is measured, not guessed: the base
plays as many short pieces as are played at once, and everything that an evaluation does is counted in such companies.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

from configs.errors import UserError
from configs.evaluate import EvaluateSettings
from finetune.judge.findings import Verdict
from finetune.run_folder import RunFolder

SHARE = 0.1
"""Of the run's time: below this an evaluation is done without being asked for."""
LEAST_SEC = 5.0
"""No evaluation takes less, so it need not be asked how much."""
PROBE_SEC, WARM_UP_SEC = 1.6, 0.2
"""The pieces that are timed, and those before them that are not: the first ones load kernels and compile."""
OVERHEAD = 2.0
"""Playing is about half of an evaluation: the rest is listening, the grid on codes and the audit."""


def evaluate_run(
    run: Path,
    *,
    wanted: bool | None,
    trained_sec: float,
    settings: EvaluateSettings | None = None,
    say: Callable[[str], None] = print,
) -> Verdict | None:
    """Judge a finished run, store the choice, and put the verdict on its page; None where it was not done.

    Args:
        run: the run's folder, with its adapter.
        wanted: True or False as the person said; None: only where it costs under a tenth of `trained_sec`.
        trained_sec: how long the run's steps took, over all its starts.
        settings: of the evaluation.
        say: hears what is done, what it costs, and why it was left out.

    A run is never lost to its evaluation: what goes wrong there is said.
    """
    if wanted is False:
        return None
    settings = settings or EvaluateSettings()
    try:
        if wanted is None and SHARE * trained_sec < LEAST_SEC:
            say(f"not evaluated after so short a run: `woodshed evaluate {run}` does it; --evaluate true always.")
            return None
        if wanted is None:
            cost_sec = expected_sec(run, settings)
            if cost_sec > SHARE * trained_sec:
                say(
                    f"not evaluated: that would take about {cost_sec:.0f} s, more than a tenth of the run. "
                    f"`woodshed evaluate {run}` does it; --evaluate true always."
                )
                return None
        return _evaluate(run, settings, say)
    except UserError as error:
        say(f"not evaluated: {error.what}")
    except Exception as error:
        say(f"not evaluated: {type(error).__name__}: {error}; `woodshed evaluate {run} --debug` shows where")
    return None


def expected_sec(run: Path, settings: EvaluateSettings) -> float:
    """About how long a quick evaluation takes on this machine, from short pieces that the base plays."""
    from finetune.judge.plan import Ask
    from finetune.judge.play import AT_ONCE, play, sampler
    from finetune.judge.subject import open_subject

    subject = open_subject(run)
    probe = settings.model_copy(update={"duration_sec": PROBE_SEC})
    player = sampler(subject.files, probe)
    asks = [Ask("foreign", "slow ballad, piano", seed) for seed in range(min(settings.count, AT_ONCE))]
    usual = player.settings
    player.settings = usual.model_copy(update={"duration_sec": WARM_UP_SEC})
    play(player, asks)
    player.settings = usual
    started = time.perf_counter()
    play(player, asks)
    at_once_sec = (time.perf_counter() - started) * settings.duration_sec / PROBE_SEC
    batches = math.ceil(settings.count / AT_ONCE)
    played = (3 + 2 * settings.grid.finalists + 1) * batches + 2 * settings.completions
    return OVERHEAD * played * at_once_sec


def _evaluate(run: Path, settings: EvaluateSettings, say: Callable[[str], None]) -> Verdict:
    from finetune.judge.flow import judge
    from finetune.judge.keep import store, write_out
    from finetune.judge.run_page import show_on_run

    judged = judge(run, settings, say=say)
    page = write_out(judged, judged.subject.out)
    for line in store(judged):
        say(line)
    show_on_run(RunFolder(run), judged.verdict, page)
    say(judged.verdict.headline)
    say(f"verdict: {page}")
    return judged.verdict
