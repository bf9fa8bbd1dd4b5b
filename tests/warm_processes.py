"""Processes of their own that start at once: forks of one that has imported torch and all of training.

A new Python would import for six seconds, each time. Where there are no forks, it does.
"""

import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
IMPORTED = [
    "finetune.train",
    "finetune.cli",
    "accelerate",
    "peft",
    "transformers.models.musicgen.modeling_musicgen",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "jinja2",
]


def start(program: str, *words: object, said: Path, **environment: str) -> BaseProcess:
    """This text as a program with these words after it; what it says on stdout and stderr goes to the file `said`."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_run, args=(program, [str(word) for word in words], said, environment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
        process.start()
    return process


def both_ended(program: str, *words: object, folder: Path, **environment: str) -> tuple[list[int | None], list[str]]:
    """The codes with which this program ended in two processes that know of each other, and what each said."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    shared |= {"GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true", **environment}
    environments = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return all_ended(program, *words, folder=folder, environments=environments)


def all_ended(
    program: str, *words: object, folder: Path, environments: list[dict[str, str]]
) -> tuple[list[int | None], list[str]]:
    """The same of a process in each of these environments."""
    said = [folder / f"said by {rank}" for rank in range(len(environments))]
    started = [start(program, *words, said=file, **given) for file, given in zip(said, environments, strict=True)]
    try:
        for process in started:
            process.join(240)
    finally:
        for process in started:
            process.kill()
    return [process.exitcode for process in started], [file.read_text() for file in said]


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def _run(program: str, words: list[str], said: Path, environment: dict[str, str]) -> None:
    with said.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ.update(environment)
    os.chdir(TESTS.parent)
    sys.argv = ["-c", *words]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
