"""What an adapter is: the base LM it plugs into, its files, its checks and its arithmetic. No training code.

The public names, each imported when it is first asked for:

    load(folder) -> Adapter                           read an adapter folder, checking everything in it
    save(folder, updates, woodshed)                   write one that plain peft loads
    check_fit(adapter, files)                         does it belong to this base? Names the difference
    merge_into_base(files, [(adapter, 1.0)], out)     a model of its own, that transformers loads
    description(adapter)                              all it says of itself, and the size of its ΔW
    blend_adapters([Source(…), …], Recipe(…))         several into one, with what it misses; `adapters.blend`
    resize_to(updates, rank=8)                        another rank, lower or higher
    extract_from(base, tuned, rank=32)                an adapter out of a tuned model
    convert_to(source, "audiocraft", out)             other tools' formats, both ways; `adapters.convert`
    pack(folder, file), unpack(file, folder)          one checked file to send
    list_adapters([folder])                           what is there, and what is broken
    pull(repo, folder), plan_push(folder), push(…)    the hub
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
    from adapters.blend.run import Recipe
    from adapters.blend.run import blend as blend_adapters
    from adapters.blend.sources import Source
    from adapters.bundle import pack, unpack
    from adapters.convert.run import convert as convert_to
    from adapters.describe import describe as description
    from adapters.extract import extract as extract_from
    from adapters.fit import check_fit
    from adapters.hub import plan_push, pull, push
    from adapters.low_rank import LowRank
    from adapters.merge import merge as merge_into_base
    from adapters.metadata import Woodshed
    from adapters.registry import list_adapters
    from adapters.resize import resize as resize_to

__all__ = [
    "Adapter",
    "LowRank",
    "Recipe",
    "Source",
    "Woodshed",
    "blend_adapters",
    "check_fit",
    "convert_to",
    "description",
    "extract_from",
    "list_adapters",
    "load",
    "merge_into_base",
    "pack",
    "plan_push",
    "pull",
    "push",
    "resize_to",
    "save",
    "unpack",
]

_HOME = {
    "Adapter": ("adapters.adapter_files", "Adapter"),
    "LowRank": ("adapters.low_rank", "LowRank"),
    "Recipe": ("adapters.blend.run", "Recipe"),
    "Source": ("adapters.blend.sources", "Source"),
    "Woodshed": ("adapters.metadata", "Woodshed"),
    "blend_adapters": ("adapters.blend.run", "blend"),
    "check_fit": ("adapters.fit", "check_fit"),
    "convert_to": ("adapters.convert.run", "convert"),
    "description": ("adapters.describe", "describe"),
    "extract_from": ("adapters.extract", "extract"),
    "list_adapters": ("adapters.registry", "list_adapters"),
    "load": ("adapters.adapter_files", "load"),
    "merge_into_base": ("adapters.merge", "merge"),
    "pack": ("adapters.bundle", "pack"),
    "plan_push": ("adapters.hub", "plan_push"),
    "pull": ("adapters.hub", "pull"),
    "push": ("adapters.hub", "push"),
    "resize_to": ("adapters.resize", "resize"),
    "save": ("adapters.adapter_files", "save"),
    "unpack": ("adapters.bundle", "unpack"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'adapters' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)
