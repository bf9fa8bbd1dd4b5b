"""conditions.safetensors: the weights that an adapter brings beside its LoRA, whole.

Those of conditions that it adds to its base are named `<kind>.<weight>`; of what is new in a base that it
moves to another codec or text encoder, `whole.<weight>`. Which there must be, and in which shapes, follows from
woodshed.json alone. A file that holds anything else, or too little, or values that are no numbers, is refused before a
value is used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.adapter_folder import CONDITIONS
from adapters.safe_files import check_header, read_tensors
from configs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.adapter_files import Adapter
    from adapters.added_conditions.frames import FrameCondition
    from adapters.metadata import Woodshed

MAX_NUMBERS = 2**29
"""Of all of them together: tables and heads of 65,536 codes take half of it in the widest base."""
WHOLE = "whole."


def write(path: Path, modules: "Mapping[str, FrameCondition]", whole: "Mapping[str, Tensor] | None" = None) -> None:
    """Write the modules' weights and those of layers that learnt whole, in fp32: training goes on from them."""
    from safetensors.torch import save_file

    from adapters.added_conditions.attach import tensors_of

    named = {f"{WHOLE}{name}": tensor for name, tensor in (whole or {}).items()}
    save_file(tensors_of(modules) | named, path, metadata={"format": "pt"})


def read(folder: Path, woodshed: "Woodshed | None") -> "tuple[dict[str, FrameCondition], dict[str, Tensor]]":
    """The modules of an adapter's folder, and the weights of layers that learnt whole; none for most adapters.

    Raises:
        UserError: the file is missing, is there without being described, or is not what the description says.
    """
    path = folder / CONDITIONS
    if woodshed is None or not brings_weights(woodshed):
        if path.exists():
            raise _unfit(path, "woodshed.json does not say what it is for")
        return {}, {}
    if not path.is_file():
        raise _unfit(path, f"it is missing, and woodshed.json says that the adapter {_what_for(woodshed)}")
    entries, _ = check_header(path)
    base = woodshed.base
    if max(base.card, 1) > 2**20 or base.hidden_size > 2**16 or base.n_codebooks > 256:
        raise _unfit(path, "woodshed.json tells of a base larger than any")
    whole = whole_shapes(woodshed)
    shapes = _shapes(woodshed) | {f"{WHOLE}{name}": shape for name, shape in whole.items()}
    if sum(_count(shape) for shape in shapes.values()) > MAX_NUMBERS:
        raise _unfit(path, f"woodshed.json asks for more than {MAX_NUMBERS:,} numbers")
    _compare(path, shapes, {name: tuple(entry["shape"]) for name, entry in entries.items()})
    tensors, _ = read_tensors(path)
    return _built(tensors, woodshed), {name: tensors[f"{WHOLE}{name}"].float() for name in whole}


def brings_weights(woodshed: "Woodshed") -> bool:
    """Whether an adapter of this description has such a file."""
    moved = woodshed.moved
    return bool(woodshed.conditions) or (moved is not None and bool(moved.text_encoder or moved.codec))


def whole_shapes(woodshed: "Woodshed") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of what is new in the base.

    Raises:
        UserError: nobody here knows the base's family.
    """
    from adapters.family.port import family_named
    from data_prep.move import CODES, WORDS

    moved, base = woodshed.moved, woodshed.base
    if moved is None or not (moved.text_encoder or moved.codec):
        return {}
    try:
        family = family_named(base.family)
    except KeyError as error:
        raise UserError(f"woodshed.json names a family of models that is not known here: {base.family}.") from error
    parts = [part for part, told in ((CODES, moved.codec), (WORDS, moved.text_encoder)) if told]
    n_codebooks, card = (moved.codec.n_codebooks, moved.codec.card) if moved.codec else (base.n_codebooks, base.card)
    width = moved.text_encoder.width if moved.text_encoder else base.text_width
    return family.whole_shapes(parts, n_codebooks=n_codebooks, card=card, hidden=base.hidden_size, text_width=width)


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


def _built(tensors: "Mapping[str, Tensor]", woodshed: "Woodshed") -> "dict[str, FrameCondition]":
    from adapters.added_conditions.frames import build

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


def _what_for(woodshed: "Woodshed") -> str:
    from adapters.moved import words_of

    follows = ", ".join(info.name for info in woodshed.conditions)
    return f"follows {follows}" if follows else f"plays {words_of(woodshed.moved)}"


def _unfit(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} cannot be used: {why}.", where=str(path), fix="Ask for the adapter, or fetch it, again, whole."
    )
