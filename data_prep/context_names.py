"""Names of what a paired dataset holds beside its clips' tokens: the context track, and degraded versions of it."""

from collections.abc import Mapping
from typing import Any

CONTEXT = "context"
"""The kind: codes of the other track, frame by frame, in step with the clip's own."""


def degraded_name(number: int) -> str:
    """The name under which degraded version 1, 2, … is stored; training draws from them, nothing else reads them."""
    return f"{CONTEXT}.{number}"


def pair_of(info: Mapping[str, Any]) -> str | None:
    """The pair that a dataset was made for, `drums|rest`, from its prep.yaml; None for one without."""
    return (info.get("conditions") or {}).get(CONTEXT, {}).get("pair")


def n_degraded(info: Mapping[str, Any]) -> int:
    """How many degraded versions of the context track a dataset holds."""
    return sum(name.startswith(f"{CONTEXT}.") for name in info.get("conditions") or {})
