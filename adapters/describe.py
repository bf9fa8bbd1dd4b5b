"""Everything that can be said of an adapter without its base: what it tells of itself, and what its numbers show.

The values are plain JSON, for `woodshed inspect --json`; texts are the author's own, unescaped: who shows them escapes.
"""

import math
from collections.abc import Mapping
from typing import Any

from adapters.adapter_files import Adapter
from adapters.low_rank import LowRank
from data_prep.families import module_kind


def describe(adapter: Adapter) -> dict[str, Any]:
    """One nested dictionary: `method`, `size`, `groups`, `follows`, `stated` (woodshed.json), `header`."""
    updates = adapter.updates
    return {
        "label": adapter.label,
        "base": {"id": adapter.base_id, "revision": adapter.revision},
        "method": method(adapter),
        "size": size(updates),
        "groups": groups(updates),
        "follows": follows(adapter),
        "stated": adapter.woodshed.model_dump(mode="json") if adapter.woodshed else None,
        "header": dict(sorted(adapter.header.items())),
    }


def follows(adapter: Adapter) -> list[dict[str, Any]]:
    """The conditions that it adds to its base's own: numbers of weights, and the Frobenius norm of the last product."""
    pairs = {info.name: info.pair for info in adapter.woodshed.conditions} if adapter.woodshed else {}
    return [
        {
            "kind": name,
            "pair": pairs.get(name, ""),
            "lookahead_frames": module.kind.lookahead,
            "stride_frames": module.stride,
            "numbers": sum(parameter.numel() for parameter in module.parameters()),
            "norm": float(module.out.weight.norm()),
        }
        for name, module in adapter.added.items()
    ]


def method(adapter: Adapter) -> dict[str, Any]:
    """Kind, ranks, alphas and dropout; a list where modules differ."""
    updates = list(adapter.updates.values())
    dora = any(update.magnitude is not None for update in updates)
    kind = "DoRA" if dora else "LoRA"
    return {
        "kind": f"rank-stabilised {kind}" if updates[0].rslora else kind,
        "ranks": sorted({update.rank for update in updates}),
        "alphas": sorted({update.alpha for update in updates}),
        "dropout": adapter.dropout,
        "dtypes": sorted({str(update.a.dtype).removeprefix("torch.") for update in updates}),
    }


def size(updates: Mapping[str, LowRank]) -> dict[str, int]:
    """How many modules, numbers and bytes."""
    tensors = [tensor for u in updates.values() for tensor in (u.a, u.b, u.magnitude) if tensor is not None]
    return {
        "modules": len(updates),
        "numbers": sum(tensor.numel() for tensor in tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors),
    }


def groups(updates: Mapping[str, LowRank]) -> list[dict[str, Any]]:
    """Per kind of module: how many, the Frobenius norm of scale · B A over all of them, and how many are still zero.

    For DoRA the norm leaves the rescaling of rows out, which only the base's weights can tell.
    """
    found: dict[str, list[float]] = {}
    for module, update in updates.items():
        found.setdefault(module_kind(module), []).append(update.norm())
    return [
        {
            "kind": kind,
            "modules": len(norms),
            "norm": math.sqrt(sum(norm**2 for norm in norms)),
            "zero": sum(norm == 0 for norm in norms),
        }
        for kind, norms in found.items()
    ]
