"""Remarks that C libraries write straight to the terminal, past Python: caught, and dropped where we understand them.

libsndfile hands MPEG audio to libmpg123, which writes what it thinks of a damaged file to file descriptor 2 and takes
no word for silence from above. What such a file lacks is said by our own errors. Lines of any other kind are written
again afterwards.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_STDERR = 2
_KNOWN = re.compile(
    rb"\[.*libmpg123.*\]|Note: (?:Illegal Audio-MPEG-Header|Trying to resync|Hit end of|Skipped|missing|.*resync)|"
    rb"Warning: (?:Real sample count|Encountered more data|.*frame)|\s*$"
)
_LOCK = threading.RLock()
"""The descriptor is the whole process's."""


@contextmanager
def known_remarks_dropped() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 meanwhile, then write it again, but for the lines we understand.

    Where there is no such descriptor, or no room for a temporary file, nothing is held back.
    """
    with _LOCK:
        taken = _terminal_and_file()
        if taken is None:
            yield
            return
        terminal, held = taken
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, _STDERR)
            held.seek(0)
            rest = b"".join(line for line in held if not _KNOWN.match(line))
            with suppress(OSError):
                os.write(terminal, rest)
            os.close(terminal)
            held.close()


def _terminal_and_file() -> tuple[int, IO[bytes]] | None:
    try:
        terminal = os.dup(_STDERR)
    except OSError:
        return None
    try:
        return terminal, tempfile.TemporaryFile()
    except OSError:
        os.close(terminal)
        return None
