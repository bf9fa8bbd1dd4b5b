"""What a blended adapter says of itself: whose child it is, how it was made, and what it misses."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from adapters.fit import check_fit, describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.metadata import AddedInfo, MadeInfo, SourceInfo, Woodshed, in_limits, license_of, version_of
from adapters.peft_layout import to_tensors
from adapters.printable import short
from configs.errors import UserError
from data_prep.fingerprint import fingerprint

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from data_prep.base_files import BaseFiles


def base_needed(adapters: Sequence["Adapter"]) -> bool:
    """Whether the base must be read to know that all belong to it, to measure DoRA on it, or to describe it.

    Not where all describe themselves and change the same modules: then their fingerprints are of the same weights.
    """
    first = adapters[0]
    return any(
        adapter.woodshed is None
        or adapter.updates.keys() != first.updates.keys()
        or any(update.magnitude is not None for update in adapter.updates.values())
        for adapter in adapters
    )


def check_same_base(adapters: Sequence["Adapter"], files: "BaseFiles | None", *, force: bool = False) -> list[str]:
    """Refuse adapters of different bases. With `files` each is held against that base itself.

    Returns what `force` let pass.

    Raises:
        UserError: names which differs and how.
    """
    if files is not None:
        return [f"{adapter.label}: {note}" for adapter in adapters for note in check_fit(adapter, files, force=force)]
    first, forced = adapters[0].woodshed, []
    assert first is not None
    for adapter in adapters[1:]:
        told = adapter.woodshed
        assert told is not None
        of_base = told.base.weight_fingerprint != first.base.weight_fingerprint
        if not of_base and told.codec.fingerprint == first.codec.fingerprint:
            continue
        what = (
            f"These adapters were made for different {'bases' if of_base else 'codecs'}: "
            f"{adapters[0].label} for {short(first.base.id)}, "
            f"{adapter.label} for {short(told.base.id)}" + (", with other weights." if of_base else ".")
        )
        if not force:
            fix = "Blend only adapters of the same base. With --force they are blended all the same."
            raise UserError(what, where=str(adapter.folder or ""), fix=fix)
        forced.append(what)
    return forced


def describe(
    name: str,
    adapters: Sequence["Adapter"],
    updates: Mapping[str, LowRank],
    made: MadeInfo,
    files: "BaseFiles | None",
    *,
    trigger: str | None = None,
    conditions: Sequence[AddedInfo] = (),
) -> Woodshed:
    """The description of `updates` and of the `conditions` beside them, made of `adapters`. Triggers of those that were
    added are joined, unless given.
    """
    added = [a.woodshed for a, s in zip(adapters, made.sources, strict=True) if a.woodshed and s.weight > 0]
    if files is not None:
        base, codec, inherited = describe_base(files, updates), describe_codec(files), license_of(files.id)
    else:
        first = adapters[0].woodshed
        assert first is not None
        base, codec, inherited = first.base, first.codec, first.license
    licenses = {told.license for adapter in adapters if (told := adapter.woodshed)} | {inherited}
    triggers = ", ".join(dict.fromkeys(told.trigger for told in added if told.trigger))
    prompts = list(dict.fromkeys(prompt for told in added for prompt in told.prompts))
    return Woodshed(
        **in_limits(name, triggers if trigger is None else trigger, prompts),
        base=base,
        codec=codec,
        made=made,
        conditions=list(conditions),
        schema_version=version_of(conditions, None),
        license=inherited if len(licenses) == 1 else "unknown",
        versions={name: version(name) for name in ("torch",)},
    )


def source_of(adapter: "Adapter", weight: float) -> SourceInfo:
    """An adapter as a source of another one: what it is called and a hash over its numbers, no path."""
    return SourceInfo(name=adapter.label, fingerprint=fingerprint(to_tensors(adapter.updates)), weight=weight)
