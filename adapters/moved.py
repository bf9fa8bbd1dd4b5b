"""Adapters that move their base to another codebook pattern, text encoder or codec: what they say, and who follows it.

A pattern is a matter of order alone. A text encoder and a codec are models of their own, named by a hub id or by the
name of a folder, and known by their fingerprint: where such a folder is now, the run beside the adapter knows, or the
person says.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.metadata import MovedInfo, OtherCodecInfo, PatternInfo, TextEncoderInfo, Woodshed
from adapters.safe_files import read_json
from configs.errors import UserError
from data_prep.codec.spec import CodecSpec
from data_prep.move import CodecChoice, Move, TextChoice
from data_prep.pattern_choice import PatternChoice
from data_prep.typed_paths import is_there

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from data_prep.base_files import BaseFiles


def info_of(move: Move) -> MovedInfo | None:
    """What woodshed.json says of a move; a folder by its name alone."""
    if not move:
        return None
    pattern, text, codec = move.pattern, move.text, move.codec
    told: dict[str, Any] = {}
    if pattern is not None:
        told["pattern"] = PatternInfo(name=pattern.name, span_frames=pattern.span_frames)
    if text is not None:
        told["text_encoder"] = TextEncoderInfo(name=_public(text.id), fingerprint=text.fingerprint, width=text.width)
    if codec is not None:
        shape = codec.shape
        told["codec"] = OtherCodecInfo(
            name=_public(codec.id),
            kind=codec.kind,
            hop_samples=shape.hop_samples,
            channels=2 if shape.channels == 2 else 1,
            n_codebooks=shape.n_codebooks,
            card=shape.card,
        )
    return MovedInfo(**told)


def move_of(woodshed: Woodshed | None, *, text_encoder: str | None = None, codec: str | None = None) -> Move:
    """What an adapter moves its base to. `text_encoder` and `codec` say where these are, if not where it says."""
    told = woodshed.moved if woodshed is not None else None
    if told is None or woodshed is None:
        return Move()
    pattern = told.pattern and PatternChoice(told.pattern.name, told.pattern.span_frames)
    text = told.text_encoder and TextChoice(
        text_encoder or told.text_encoder.name, told.text_encoder.fingerprint, told.text_encoder.width
    )
    other = told.codec and CodecChoice(
        codec or told.codec.name,
        told.codec.kind,
        woodshed.codec.fingerprint,
        CodecSpec(
            woodshed.codec.sample_rate_hz,
            told.codec.hop_samples,
            told.codec.channels,
            told.codec.n_codebooks,
            told.codec.card,
        ),
    )
    return Move(pattern or None, text or None, other or None)


def moved_files(
    files: "BaseFiles",
    adapters: Sequence["Adapter"],
    *,
    text_encoder: str | None = None,
    codec: str | None = None,
) -> "BaseFiles":
    """The base as these adapters move it, by the text encoder and the codec that are at these places.

    Raises:
        UserError: they do not agree, the base cannot be moved so, a place is given for what nobody moves, or a folder
            is not known here.
    """
    told = [adapter.woodshed.moved if adapter.woodshed else None for adapter in adapters]
    for adapter, one in zip(adapters[1:], told[1:], strict=True):
        if one != told[0]:
            raise UserError(
                f"{adapters[0].label} plays {words_of(told[0])}, {adapter.label} {words_of(one)}: one model cannot do "
                "both.",
                fix="Play them one after the other.",
            )
    first = told[0] if told else None
    for name, given in (("text_encoder", text_encoder), ("codec", codec)):
        if given is not None and (first is None or getattr(first, name) is None):
            raise UserError(
                f"--{name} {given} would change nothing: the base's own is used here.",
                fix=f"Leave it out; to train with another, woodshed prep --{name} {given}.",
            )
    if first is None:
        return files.own
    places = _told_by_run(adapters[0].folder)
    if first.text_encoder is not None:
        text_encoder = text_encoder or _place("text_encoder", first.text_encoder.name, places, adapters[0])
    if first.codec is not None:
        codec = codec or _place("codec", first.codec.name, places, adapters[0])
    return files.own.moved(move_of(adapters[0].woodshed, text_encoder=text_encoder, codec=codec))


def words_of(told: MovedInfo | None) -> str:
    """For people: "in the pattern flattening, with the text encoder NAME"."""
    if told is None:
        return "as the base does"
    parts = []
    if told.pattern is not None:
        parts.append(f"in the pattern {told.pattern.name}")
    if told.text_encoder is not None:
        parts.append(f"with the text encoder {told.text_encoder.name}")
    if told.codec is not None:
        parts.append(f"with the codec {told.codec.name}")
    return ", ".join(parts)


def refuse_moved(adapters: "Sequence[Adapter]", why: str) -> None:
    """Stop where what an adapter moves its base to would get lost without a word.

    Raises:
        UserError: one of the adapters moves it.
    """
    for adapter in adapters:
        if adapter.woodshed is not None and adapter.woodshed.moved is not None:
            raise UserError(
                f"{adapter.label} plays {words_of(adapter.woodshed.moved)} and cannot be {why}.",
                where=str(adapter.folder or ""),
                fix="Use it as it is: woodshed sample ADAPTER PROMPT.",
            )


def _public(id: str) -> str:
    return Path(id).name if is_there(id) else id


def _told_by_run(folder: Path | None) -> dict[str, Any]:
    """Where the run that an adapter lies in found the other models."""
    try:
        told = read_json((folder or Path()).resolve().parent / "versions.json").get("moved", {})
    except (UserError, json.JSONDecodeError):
        return {}
    return told if isinstance(told, dict) else {}


def _place(what: str, name: str, places: dict[str, Any], adapter: "Adapter") -> str:
    known = places.get(what)
    if isinstance(known, str) and (known == name or (is_there(known) and _public(known) == name)):
        return known
    if "/" in name or is_there(name) or (what == "codec" and name in ("starter", "debug", "debug-stereo")):
        return name
    raise UserError(
        f"{adapter.label} was trained with the {what.replace('_', ' ')} {name}, a folder that is not known here.",
        where=str(adapter.folder or ""),
        fix=f"Add --{what} and the folder where it is now: it is known by its fingerprint, whatever it is called.",
    )
