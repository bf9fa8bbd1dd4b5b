"""Questions about a path that a person typed, or about a text that may be one: they answer no and never raise.

`Path.is_file` and its like raise where a text is too long for a name, has a character that no name has, or where a
folder above it may not be looked into; a prompt of a few hundred letters is then an error.
"""

from pathlib import Path


def is_folder(text: str | Path) -> bool:
    """Whether there is a folder of this name; `~` is a home folder."""
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # the last: ~somebody, whom this machine does not know
        return False


def is_file(text: str | Path) -> bool:
    """Whether there is a file of this name; `~` is a home folder."""
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def is_there(text: str | Path) -> bool:
    """Whether anything has this name."""
    return is_folder(text) or is_file(text)
