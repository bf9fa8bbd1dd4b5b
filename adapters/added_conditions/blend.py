"""Conditions of several adapters into one, exactly: what is added is the weighted sum, because the small vectors stand
side by side, as the ranks of a LoRA do. A prefix's entries are such a sum too, at the positions that all of them have.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.added_conditions.frames import FrameCodes, FrameCondition, FrameFeatures, build
from adapters.metadata import MAX_PAIR, MAX_SIZE, AddedInfo
from configs.errors import UserError

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter


def blend_added(
    adapters: "Sequence[Adapter]", weights: Sequence[float]
) -> tuple[list[AddedInfo], dict[str, FrameCondition]]:
    """What adapters follow together, each with its weight: descriptions, and modules whose output is the weighted sum.

    Raises:
        UserError: two of them read the same kind in ways that no one module can: another lookahead, way or size.
    """
    parts: dict[str, list[tuple[Adapter, FrameCondition, float]]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for name, module in adapter.added.items() if weight else ():
            parts.setdefault(name, []).append((adapter, module, weight))
    infos, modules = [], {}
    for name, some in parts.items():
        info = _together(name, [_info_of(adapter, name) for adapter, _, _ in some], [a.label for a, _, _ in some])
        infos.append(info)
        modules[name] = _summed(info, [(module, weight) for _, module, weight in some])
    return infos, modules


def _info_of(adapter: "Adapter", name: str) -> AddedInfo:
    assert adapter.woodshed is not None, "conditions come with a description"
    return next(info for info in adapter.woodshed.conditions if info.name == name)


def _together(name: str, infos: Sequence[AddedInfo], labels: Sequence[str]) -> AddedInfo:
    """The description of all of them; how far ahead the farthest reads."""
    farthest = max(infos, key=lambda info: info.lookahead_frames)
    pairs = ", ".join(dict.fromkeys(info.pair for info in infos if info.pair))
    size = sum(info.size for info in infos)
    for info, label in zip(infos, labels, strict=True):
        if (info.values, info.width, info.stride_frames) != (farthest.values, farthest.width, farthest.stride_frames):
            raise _cannot(name, labels, f"{label} reads it in another way")
    if size > MAX_SIZE:
        raise _cannot(name, labels, f"together their vectors have {size:,} numbers, and {MAX_SIZE:,} are the most")
    return farthest.model_copy(update={"size": size, "pair": pairs[:MAX_PAIR]})


def _summed(info: AddedInfo, parts: Sequence[tuple[FrameCondition, float]]) -> FrameCondition:
    first = parts[0][0]
    card, n_codebooks = (first.card, first.kind.width) if isinstance(first, FrameCodes) else (0, 0)
    hidden = first.out.out_features
    made = build(info, n_codebooks, card, hidden).requires_grad_(False)
    if any(module.out.out_features != hidden or getattr(module, "card", 0) != card for module, _ in parts):
        raise UserError(f"What these adapters add for {info.name} was made for bases of different sizes.")
    blocks = [_in_places(module, weight, made, info.name) for module, weight in parts]
    made.out.weight.copy_(torch.cat(blocks, 2).flatten(1))
    if isinstance(made, FrameCodes):
        made.tables.copy_(torch.cat([m.tables for m, _ in parts if isinstance(m, FrameCodes)], 2))
    elif isinstance(made, FrameFeatures):
        made.into.copy_(torch.cat([m.into for m, _ in parts if isinstance(m, FrameFeatures)], 0))
    return made


def _in_places(module: FrameCondition, weight: float, made: FrameCondition, name: str) -> Tensor:
    """A module's last product [D, J, d], its frames moved to where `made` reads them."""
    block = weight * module.out.weight.unflatten(1, (-1, module.size))  # [D, J, d]
    if made.stride:
        return block
    places = {offset: at for at, offset in enumerate(made.offsets.tolist())}
    own = module.offsets.tolist()
    if any(offset not in places for offset in own):
        raise UserError(
            f"These adapters look ahead in {name} to frames that no one adapter can read: {own[-1]} and "
            f"{int(made.offsets[-1])}.",
            fix="Blend adapters that were trained with the same context.lookahead_sec.",
        )
    moved = block.new_zeros(block.shape[0], len(places), module.size)
    moved[:, [places[offset] for offset in own]] = block
    return moved


def _cannot(name: str, labels: Sequence[str], why: str) -> UserError:
    return UserError(
        f"{' and '.join(labels)} follow {name}, and one adapter cannot do it for both: {why}.",
        fix="Play them one after the other: what the first has played can be the second one's context track.",
    )


def told(infos: Sequence[AddedInfo], adapters: "Sequence[Adapter]", weights: Sequence[float]) -> list[str]:
    """A line for each condition: how wide it is now, and whose."""
    used = [adapter for adapter, weight in zip(adapters, weights, strict=True) if weight]
    return [
        f"{info.name}: {info.size} numbers a frame, from "
        + ", ".join(adapter.label for adapter in used if info.name in adapter.added)
        for info in infos
    ]
