"""The driver that autograd asks whether there is a device: a stub of a few C functions, compiled for the occasion.

It has to be there before torch is loaded, so whoever trains on the fake card is a process of its own.
"""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def environment_with_driver(folder: Path) -> dict[str, str]:
    """Compile the stub into `folder`; the environment of a process that finds it."""
    assert COMPILER is not None
    for source, library in (("driver.c", "libcuda.so.1"), ("runtime.c", "libfakecard.so")):
        words = [COMPILER, "-shared", "-fPIC", "-o", str(folder / library), str(HERE / source)]
        subprocess.run(words, check=True)
    root = HERE.parent.parent
    paths = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    libraries = os.pathsep.join([str(folder), os.environ.get("LD_LIBRARY_PATH", "")])
    preload = str(folder / "libfakecard.so")
    return {**os.environ, "PYTHONPATH": paths, "LD_PRELOAD": preload, "LD_LIBRARY_PATH": libraries}
