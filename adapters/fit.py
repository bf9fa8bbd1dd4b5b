"""Does this adapter belong to this base? Every difference by name; what is impossible is told from what is unwise.

Impossible: modules or shapes that the base does not have. Unwise: the same shapes with other weights, or another
codec, where an adapter loads without a word and plays something else. Only the tensors that matter are read.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from adapters.family.port import family_of
from adapters.low_rank import LowRank
from adapters.metadata import BaseInfo, CodecInfo, public_id
from adapters.printable import short
from configs.errors import UserError
from data_prep.fingerprint import fingerprint

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from data_prep.base_files import BaseFiles


def check_fit(adapter: "Adapter", files: "BaseFiles", *, force: bool = False) -> list[str]:
    """Refuse an adapter that does not belong to the base. Returns what `force` let pass.

    Raises:
        UserError: names every difference, and whether --force would help.
    """
    impossible = differences_in_shape(adapter.updates, files)
    unwise = differences_in_weights(adapter, files)
    if impossible or (unwise and not force):
        wanted = short(adapter.base_id) or "an unnamed base"
        raise UserError(
            f"This adapter does not fit {public_id(files)}:\n  " + "\n  ".join(_some([*unwise, *impossible])),
            where=str(adapter.folder or ""),
            fix=_advice(adapter, family_of(files).elsewhere, impossible, unwise, wanted),
        )
    return unwise


def _advice(
    adapter: "Adapter", elsewhere: Mapping[str, str], impossible: list[str], unwise: list[str], wanted: str
) -> str:
    strange = [module for module in adapter.updates if module.split(".", 1)[0] in elsewhere]
    if strange and len(strange) == len(impossible) and not unwise:
        return (
            f"It was trained on more than the language model ({len(strange)} of {len(adapter.updates)} modules; "
            "target_modules: all-linear does that), and no other --base changes it. It plays in peft alone; for "
            "Woodshed, train it again with target_modules of the decoder only."
        )
    forced = "" if impossible else " With --force it is used all the same, and will hardly sound as meant."
    return f"It was made for {wanted}: give that as --base.{forced}"


def differences_in_shape(updates: Mapping[str, LowRank], files: "BaseFiles") -> list[str]:
    """Modules that the base does not have, or has in another shape."""
    family = family_of(files)
    shapes = family.stored(files).shapes
    found = []
    for module, update in updates.items():
        elsewhere = family.elsewhere.get(module.split(".", 1)[0])
        shape = shapes.get(f"{module}.weight")
        if elsewhere is not None:
            found.append(f"{module}: belongs to {elsewhere}")
        elif shape is None:
            found.append(f"{module}: the base has no such part")
        elif shape != update.weight_shape:
            found.append(f"{module}: made for {_by(update.weight_shape)}, the base has {_by(shape)}")
    return found


def differences_in_weights(adapter: "Adapter", files: "BaseFiles") -> list[str]:
    """Another model, other weights or another codec. Without woodshed.json only the names can be compared."""
    told = adapter.woodshed
    if told is None:
        names = adapter.base_id, public_id(files)
        return [f"base: made for {short(names[0])}, this is {names[1]}"] if _are_two_hub_ids(*names) else []
    base, codec = describe_base(files, adapter.updates), describe_codec(files)
    names = {
        "weight_fingerprint": "fingerprint of the weights",
        "n_codebooks": "codebooks",
        "channels": "audio channels",
        "card": "codebook size",
        "hidden_size": "hidden size",
        "n_layers": "layers",
        "text_width": "text width",
        "fingerprint": "fingerprint of the codec",
        "sample_rate_hz": "sample rate in Hz",
        "frame_rate": "frames per second",
    }
    another = told.moved is not None and told.moved.codec is not None
    pairs = [(told.base, base), *([] if another and files.move.codec is None else [(told.codec, codec)])]
    return [
        f"{words}: made for {getattr(theirs, field)}, the base has {getattr(ours, field)}"
        for theirs, ours in pairs
        for field, words in names.items()
        if hasattr(theirs, field) and getattr(theirs, field) != getattr(ours, field)
    ]


def describe_base(files: "BaseFiles", modules: Iterable[str]) -> BaseInfo:
    """What woodshed.json says of a base, with the fingerprint over the weights of these modules."""
    stored, spec = family_of(files).stored(files), files.own_spec
    touched = {name: stored[name] for name in (f"{module}.weight" for module in modules) if name in stored}
    return BaseInfo(
        id=public_id(files),
        family=spec.family,
        revision=files.revision,
        weight_fingerprint=fingerprint(touched),
        n_codebooks=spec.n_codebooks,
        channels=2 if spec.channels == 2 else 1,
        card=spec.card,
        hidden_size=spec.hidden,
        n_layers=spec.layers,
        text_width=spec.text_width,
    )


def describe_codec(files: "BaseFiles") -> CodecInfo:
    """What woodshed.json says of a base's codec, or of the one that it is moved to."""
    from data_prep.codec.registry import base_codec_fingerprint

    spec = files.spec
    return CodecInfo(
        fingerprint=base_codec_fingerprint(files), sample_rate_hz=spec.sample_rate_hz, frame_rate=spec.frame_rate
    )


def _are_two_hub_ids(one: str, other: str) -> bool:
    return one != other and one.count("/") == 1 and other.count("/") == 1


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _some(lines: list[str]) -> list[str]:
    return lines if len(lines) <= 6 else [*lines[:6], f"and {len(lines) - 6} more"]
