"""The demo from songs to page. Each stage keeps what it finished, so that a second call goes on or says it is done."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters import adapter_files
from adapters.redescribe import redescribe
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.prepare import prepare
from data_prep.safe_write import GOES_ON, storing, write_text
from finetune.checkpoint import how_to_go_on, newest
from finetune.demo import listen, page
from finetune.demo.plan import STRENGTH, Plan
from finetune.finish import REPEAT
from finetune.run_folder import RunFolder
from finetune.train import train

PLAN_FILE = "demo.json"


def run_demo(plan: Plan) -> bool:
    """Do what is left to do; False when nothing was.

    Raises:
        UserError: the folder holds something else, or another demo.
    """
    _claim(plan)
    if plan.page.exists():
        return False
    clock = Clock(plan.out / "seconds.json")
    files = resolve_base(plan.base)
    with clock("prep", "1/4  preparing the songs"):
        prepare(plan.songs, plan.dataset, plan.prep())
    with clock("training", "2/4  training an adapter"):
        _train(plan)
        _recommend(plan.run / "adapter", STRENGTH)
    with clock("playing", "3/4  playing with and without it"):
        prompt_rows = listen.comparisons(plan, files)
        codec_rows = listen.reconstructions(plan, files)
    print("4/4  writing the page", flush=True)
    write_text(plan.page, page.render(plan, clock.seconds, codec_rows, prompt_rows))
    return True


def _train(plan: Plan) -> None:
    folder = RunFolder(plan.run)
    if (folder.adapter / "adapter_model.safetensors").exists():
        return
    resume = folder.config.exists() and newest(folder.checkpoints) is not None
    try:
        train(plan.dataset, plan.run, plan.train(), resume=resume)
    except UserError as error:
        raise _in_demo_words(error, folder) from error


def _recommend(folder: Path, strength: float) -> None:
    """Store the strength that it plays at where none was chosen yet, so that `woodshed sample` plays it alike."""
    adapter = adapter_files.load(folder)
    told = adapter.woodshed
    if told is not None and told.recommended_strength is None:
        redescribe(folder, told.model_copy(update={"recommended_strength": strength}), adapter.updates)


def _in_demo_words(error: UserError, folder: RunFolder) -> UserError:
    """The same error where it speaks of `--resume`: the demo has no such flag, and goes on by itself."""
    fix = error.fix
    for advice in (how_to_go_on(folder.checkpoints), REPEAT):
        fix = fix.replace(advice, GOES_ON)
    return UserError(error.what, where=error.where, fix=fix)


def _claim(plan: Plan) -> None:
    """Take an empty folder, or one that the same demo has begun."""
    mark = plan.out / PLAN_FILE
    asked = {"songs": str(plan.songs.resolve()), "base": plan.base, "steps": plan.steps, "play_sec": plan.play_sec}
    if mark.exists():
        begun = json.loads(mark.read_text("utf-8"))
        changed = [f"{name}: {begun[name]} → {asked[name]}" for name in asked if begun[name] != asked[name]]
        if changed:
            raise UserError(
                "This folder holds a demo with other settings:\n  " + "\n  ".join(changed),
                where=str(plan.out),
                fix="Give another folder with --out, or delete this one.",
            )
        return
    if plan.out.exists() and any(plan.out.iterdir()):
        raise UserError("This folder is not empty.", where=str(plan.out), fix="Give another one with --out.")
    with storing(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    write_text(mark, json.dumps(asked, indent=2) + "\n")


class Clock:
    """Seconds of each stage, added up over calls: a demo that was stopped does not seem faster than it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    @contextmanager
    def __call__(self, name: str, words: str) -> Iterator[None]:
        """Say what begins, and count its time, even when it is stopped."""
        print(words, flush=True)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            write_text(self.path, json.dumps(self.seconds) + "\n")
