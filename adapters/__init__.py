"""What an adapter is: the base LM it plugs into, its files, its checks and its arithmetic. No training code.

The public names, each imported when it is first asked for:

    load(folder) -> Adapter                           read an adapter folder, checking everything in it
    save(folder, updates, woodshed)                   write one that plain peft loads
    check_fit(adapter, files)                         does it belong to this base? Names the difference
    merge_into_base(files, [(adapter, 1.0)], out)     a model of its own, that transformers loads
    description(adapter)                              all it says of itself, and the size of its ΔW
    Adapter, LowRank, Woodshed                        an adapter, one module's update, woodshed.json

    import adapters
    from data_prep.base_files import resolve_base

    mine = adapters.load(Path("runs/mine/adapter"))
    adapters.merge_into_base(resolve_base(mine.base_id), [(mine, 0.8)], Path("merged"))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter, load, save
    from adapters.describe import describe as description
    from adapters.fit import check_fit
    from adapters.low_rank import LowRank
    from adapters.merge import merge as merge_into_base
    from adapters.metadata import Woodshed

__all__ = ["Adapter", "LowRank", "Woodshed", "check_fit", "description", "load", "merge_into_base", "save"]

_HOME = {
    "Adapter": ("adapters.adapter_files", "Adapter"),
    "LowRank": ("adapters.low_rank", "LowRank"),
    "Woodshed": ("adapters.metadata", "Woodshed"),
    "check_fit": ("adapters.fit", "check_fit"),
    "description": ("adapters.describe", "describe"),
    "load": ("adapters.adapter_files", "load"),
    "merge_into_base": ("adapters.merge", "merge"),
    "save": ("adapters.adapter_files", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'adapters' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)
