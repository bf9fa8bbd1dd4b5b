"""ViSQOL (Chinen et al. 2020, arXiv:2004.09584) in audio mode, where the package `visqol-python` is installed.

An estimate of the mean opinion score that listeners would give, 1 to about 4.7, from a support vector regression on
gammatone spectra at 48 kHz.
"""

import importlib
import importlib.util
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

VISQOL_RATE_HZ = 48_000
INSTALL = "pip install visqol-python"


def visqol_available() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("visqol") is not None


def visqol_mos(ours: Float[np.ndarray, "C N"], theirs: Float[np.ndarray, "C N"]) -> float:
    """Estimated opinion score of ours against theirs, both at 48 kHz; channels are mixed to one."""
    made, wanted = (np.ascontiguousarray(audio.mean(axis=0), np.float64) for audio in (ours, theirs))
    return float(_api().measure_from_arrays(wanted, made, VISQOL_RATE_HZ).moslqo)


@lru_cache(maxsize=1)
def _api() -> Any:
    api = importlib.import_module("visqol").VisqolApi()
    api.create(mode="audio")
    return api
