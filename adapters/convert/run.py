"""From any format to any other: what is read, by what way, and what is written."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from adapters import adapter_files
from adapters.added_conditions.files import refuse_added
from adapters.convert.audiocraft import from_audiocraft, to_audiocraft
from adapters.convert.kohya import to_kohya
from adapters.convert.read import Cut, Kind, kind_of, read_adapter, state_of
from adapters.fit import check_fit
from adapters.merge import merge
from adapters.metadata import MAX_NAME
from adapters.moved import refuse_moved
from configs.errors import UserError
from data_prep.base_files import resolve_base

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from data_prep.base_files import BaseFiles

Dtype = Literal["base", "fp32", "bf16", "fp16"]


class Converted(NamedTuple):
    """What a conversion cost: the relative error of an extracted adapter, else 0; and what `force` let pass."""

    error: float
    forced: list[str]


def convert(
    source: Path,
    to: Kind,
    out: Path,
    *,
    base: "BaseFiles | None" = None,
    strength: float = 1.0,
    cut: Cut | None = None,
    dtype: Dtype = "base",
    name: str | None = None,
    force: bool = False,
) -> Converted:
    """Write `source` in another format. Returns what that lost, and what was forced.

    Args:
        source: an adapter folder, a transformers folder, audiocraft's state dict, or a file in kohya's layout.
        to: the format to write.
        out: a new folder; for kohya's layout a new file.
        base: the base; needed wherever weights are made or compared. An adapter's own is taken where it names one.
        strength: of an adapter that is merged on the way.
        cut: how much of a tuned model becomes an adapter; exact unless told.
        dtype: of merged weights.
        name: what to call an adapter that is written.
        force: go on where an adapter's fingerprints say that it is for another base.

    Raises:
        UserError: it cannot be read, does not fit the base, or needs no converting.
    """
    kind, cut = kind_of(source), cut or Cut()
    if kind == to and kind != "peft":
        raise UserError(f"{source} is in that format already.", fix="Choose another format with --to.")
    models = ("transformers", "audiocraft")
    if strength != 1 and (to not in models or kind in models):
        raise UserError("A strength is for merging an adapter.", where=str(source), fix="Leave the @ and number out.")
    if to in models and kind in models:
        _model_to_model(source, kind, base, out, dtype)
        return Converted(0.0, [])
    adapter = read_adapter(source, kind, base, cut, force=force)
    if base is None and (to in models or adapter.woodshed is None):
        adapter, base = _with_base(adapter, source, kind, cut, force)
    forced = [] if base is None else check_fit(adapter, base, force=force)
    if to != "peft":
        refuse_added([adapter], f"written as {to}, which has no place for that")
        refuse_moved([adapter], f"written as {to}, which has no place for that")
    if to == "kohya":
        to_kohya(_named(adapter, name), out)
    elif to == "peft":
        _save(_named(adapter, name), out)
    elif base is not None:
        write = merge if to == "transformers" else to_audiocraft
        write(base, [(adapter, strength)], out, dtype=dtype, force=force)
    made = adapter.woodshed.made if adapter.woodshed else None
    return Converted(made.error if made is not None and made.method == "extract" else 0.0, forced)


def _with_base(adapter: "Adapter", source: Path, kind: Kind, cut: Cut, force: bool) -> "tuple[Adapter, BaseFiles]":
    """The same adapter, described, with the base that it names."""
    if not adapter.base_id:
        raise UserError("This adapter does not say which base it belongs to.", where=str(source), fix="Add --base.")
    files = resolve_base(adapter.base_id, adapter.revision)
    return read_adapter(source, kind, files, cut, force=force), files


def _model_to_model(source: Path, kind: Kind, base: "BaseFiles | None", out: Path, dtype: Dtype) -> None:
    if kind == "transformers":
        to_audiocraft(resolve_base(str(source)), [], out, dtype=dtype)
        return
    if base is None:
        raise UserError(
            "audiocraft's state dict holds the LM alone; the text encoder and the codec come from a base of its size.",
            where=str(source),
            fix="Add --base, e.g. --base facebook/musicgen-small.",
        )
    from_audiocraft(state_of(source), base, out)


def _named(adapter: "Adapter", name: str | None) -> "Adapter":
    if not name or adapter.woodshed is None:
        return adapter
    return replace(adapter, woodshed=adapter.woodshed.model_copy(update={"name": name[:MAX_NAME]}))


def _save(adapter: "Adapter", out: Path) -> None:
    assert adapter.woodshed is not None
    told = adapter.woodshed
    adapter_files.save(out, adapter.updates, told, dropout=adapter.dropout, added=adapter.added, whole=adapter.whole)
