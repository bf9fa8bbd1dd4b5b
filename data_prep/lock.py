"""One `prep` at a time per folder. The lock belongs to the process: it is gone when that ends, however it ends."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from configs.errors import UserError
from data_prep.safe_write import GOES_ON, storing


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        UserError: another process holds it, says which one and since when; or the disk is full or refuses.
    """
    lock, owner = FileLock(folder / "lock"), folder / "lock.json"
    with storing(folder, again=GOES_ON):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                "Another `woodshed prep` is working on this folder.",
                where=_described(owner),
                fix="Wait until it has finished, or stop it and start again: finished work is kept.",
            ) from error
    try:
        mine = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # it only helps to explain a refusal
            owner.write_text(json.dumps(mine))
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _described(owner: Path) -> str:
    try:
        held = json.loads(owner.read_text())
        return f"process {held['pid']} on {held['host']}, since {held['since']}"
    except (OSError, ValueError, KeyError):
        return str(owner.parent)
