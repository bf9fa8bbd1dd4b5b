"""Is a file of weights all there? Told by its size and first bytes, before anything believes the length it states.

A safetensors file is 8 bytes with the length of its header (little-endian), the header as JSON, then the tensors:
https://github.com/huggingface/safetensors#format
"""

from pathlib import Path

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def problem(path: Path) -> tuple[str, str] | None:
    """What is wrong with a safetensors file and what to do about it, or None."""
    again = "Fetch or copy it again."
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
        size = path.stat().st_size
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror or error}.", again
    if start == _LFS_POINTER:
        return f"{path.name} only points to the weights (Git LFS).", "Run `git lfs pull` in its folder."
    if size < 8:
        return f"{path.name} is empty or cut off.", again
    length = int.from_bytes(start[:8], "little")
    if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES) or start[8:9] != b"{":
        return f"{path.name} is damaged or no safetensors file ({size:,} bytes).", again
    return None
