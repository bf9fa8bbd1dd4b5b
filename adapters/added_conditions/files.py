"""conditions.safetensors: the weights of the conditions that an adapter adds to its base.

Tensors are named `<kind>.<weight>`; which there must be, and in which shapes, follows from woodshed.json alone. A file
that holds anything else, or too little, or values that are no numbers, is refused before a value is used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.adapter_folder import CONDITIONS
from adapters.safe_files import check_header, read_tensors
from configs.errors import UserError

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from adapters.added_conditions.frames import FrameCondition
    from adapters.metadata import Woodshed

MAX_NUMBERS = 2**26
"""Of all conditions of an adapter together: thirty times what the largest base needs."""


def write(path: Path, modules: "Mapping[str, FrameCondition]") -> None:
    """Write the modules' weights, in fp32: they are few, and training goes on from them."""
    from safetensors.torch import save_file

    from adapters.added_conditions.attach import tensors_of

    save_file(tensors_of(modules), path, metadata={"format": "pt"})


def read(folder: Path, woodshed: "Woodshed | None") -> "dict[str, FrameCondition]":
    """The modules of an adapter's folder; none for an adapter that adds no condition.

    Raises:
        UserError: the file is missing, is there without being described, or is not what the description says.
    """
    path = folder / CONDITIONS
    infos = woodshed.conditions if woodshed is not None else []
    if not infos or woodshed is None:
        if path.exists():
            raise _unfit(path, "woodshed.json does not say what it is for")
        return {}
    if not path.is_file():
        raise _unfit(path, f"it is missing, and woodshed.json says that the adapter follows {_names(woodshed)}")
    entries, _ = check_header(path)
    base = woodshed.base
    if max(base.card, 1) > 2**20 or base.hidden_size > 2**16 or base.n_codebooks > 256:
        raise _unfit(path, "woodshed.json tells of a base larger than any")
    shapes = _shapes(woodshed)
    if sum(_count(shape) for shape in shapes.values()) > MAX_NUMBERS:
        raise _unfit(path, f"woodshed.json asks for more than {MAX_NUMBERS:,} numbers")
    _compare(path, shapes, {name: tuple(entry["shape"]) for name, entry in entries.items()})
    return _built(path, woodshed)


def refuse_added(adapters: "Sequence[Adapter]", why: str) -> None:
    """Stop where weights of a condition would get lost without a word.

    Raises:
        UserError: one of the adapters follows a condition that its base does not.
    """
    for adapter in adapters:
        if adapter.added:
            raise UserError(
                f"{adapter.label} follows {', '.join(adapter.added)} and cannot be {why}.",
                where=str(adapter.folder or ""),
                fix="Use it as it is: woodshed sample ADAPTER PROMPT --with FILE (or --melody, --beat).",
            )


def _built(path: Path, woodshed: "Woodshed") -> "dict[str, FrameCondition]":
    from adapters.added_conditions.frames import build

    tensors, _ = read_tensors(path)
    base = woodshed.base
    made = {}
    for info in woodshed.conditions:
        module = build(info, base.n_codebooks, base.card, base.hidden_size)
        start = f"{info.name}."
        own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        module.load_state_dict({name: tensor.float() for name, tensor in own.items()})
        made[info.name] = module.requires_grad_(False)
    return made


def _shapes(woodshed: "Woodshed") -> dict[str, tuple[int, ...]]:
    """Names and shapes that the description asks for, without making any tensor."""
    import torch

    from adapters.added_conditions.frames import build

    base = woodshed.base
    found = {}
    for info in woodshed.conditions:
        if info.values == "codes" and info.width != base.n_codebooks:
            raise UserError(
                f"woodshed.json: {info.name} has {info.width} codes per frame, the base {base.n_codebooks}."
            )
        with torch.device("meta"):
            module = build(info, base.n_codebooks, base.card, base.hidden_size)
        found |= {f"{info.name}.{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return found


def _compare(path: Path, asked: dict[str, tuple[int, ...]], held: dict[str, tuple[int, ...]]) -> None:
    from adapters.printable import short

    missing, unknown = sorted(asked.keys() - held.keys()), sorted(held.keys() - asked.keys())
    if missing:
        raise _unfit(path, f"{missing[0]} is missing")
    if unknown:
        raise _unfit(path, f"{short(unknown[0])} is not part of any condition")
    for name, shape in asked.items():
        if held[name] != shape:
            raise _unfit(path, f"{name} has the shape {list(held[name])}, woodshed.json asks for {list(shape)}")


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _names(woodshed: "Woodshed") -> str:
    return ", ".join(info.name for info in woodshed.conditions)


def _unfit(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} cannot be used: {why}.", where=str(path), fix="Ask for the adapter, or fetch it, again, whole."
    )
