"""Names of what a paired dataset holds beside the tokens of its clips: the heard track, and degraded versions of it."""

from collections.abc import Mapping
from typing import Any

HEARD = "heard"
"""The kind: codes of the other track, frame by frame, in step with the clip's own."""


def degraded_name(number: int) -> str:
    """The name under which degraded version 1, 2, … is stored; training draws from them, nothing else reads them."""
    return f"{HEARD}.{number}"


def pair_of(info: Mapping[str, Any]) -> str | None:
    """The pair that a dataset was made for, `drums|rest`, from its prep.yaml; None for one without."""
    return (info.get("conditions") or {}).get(HEARD, {}).get("pair")


def n_degraded(info: Mapping[str, Any]) -> int:
    """How many degraded versions of the heard track a dataset holds."""
    return sum(name.startswith(f"{HEARD}.") for name in info.get("conditions") or {})
