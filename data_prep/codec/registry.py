"""Which codec a configuration means. The kinds by their `model_type`; a kind's module is imported only when it is used.

A kind is a function `load(source, device) -> Codec`, usually that of the module that is named for it.
"""

import importlib
from collections.abc import Callable
from functools import partial

import torch

from configs.errors import UserError
from data_prep.base_files import BaseFiles, load_tensors
from data_prep.codec.port import Codec
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.lm_spec import LMSpec

Loader = Callable[[CodecSource, str | torch.device], Codec]

KINDS: dict[str, str | Loader] = {
    "encodec": "data_prep.codec.encodec",
    "dac": "data_prep.codec.dac",
    "mimi": "data_prep.codec.mimi",
    "xcodec": "data_prep.codec.xcodec",
    "xcodec2": "data_prep.codec.xcodec2",
    "woodshed_vq": "data_prep.codec.woodshed_vq",
    "spectrostream": "data_prep.codec.spectrostream.codec",
}
"""Name → the module whose `load` makes the codec, or a function that does."""


def register(name: str, loader: Loader) -> None:
    """Add a kind under the `model_type` that its configurations carry.

    Raises:
        ValueError: the name is taken.
    """
    if name in KINDS:
        raise ValueError(f"there is a codec kind {name!r} already")
    KINDS[name] = loader


def load_codec(source: CodecSource, device: str | torch.device = "cpu") -> Codec:
    """Load a codec of any kind.

    Raises:
        UserError: nobody knows the kind, or its files cannot be used.
    """
    kind = KINDS.get(source.kind)
    if kind is None:
        raise UserError(
            f"There is no codec of the kind `{source.kind}`; Woodshed knows {', '.join(sorted(KINDS))}.",
            where=str(source.where),
            fix="Use a codec of one of these kinds.",
        )
    load: Loader = importlib.import_module(kind).load if isinstance(kind, str) else kind
    return load(source, device)


def base_codec_source(files: BaseFiles) -> CodecSource:
    """The codec inside a base's checkpoint, or beside it where its family says so; or the one that it is moved to.

    Raises:
        UserError: that one is not found, or is another than is meant.
    """
    if files.move.codec is not None:
        from data_prep.codec.resolve import resolve_choice

        return resolve_choice(files.move.codec)
    own = files.format.codec_source(files.folder)
    if own is not None:
        return own
    part = files.format.parts["codec"]
    config = files.config.get(part) or {}
    return CodecSource(
        kind=files.spec.codec,
        config=config,
        tensors=partial(load_tensors, files, part),
        where=files.folder,
        channels=files.spec.channels,
    )


def load_base_codec(files: BaseFiles, device: str | torch.device = "cpu") -> Codec:
    """Load only the codec's weights of a base.

    Raises:
        UserError: the codec does not fit the LM of the same base, or its weights are incomplete.
    """
    codec = load_codec(base_codec_source(files), device)
    if files.move.codec is not None:
        return codec
    got, want = _numbers(codec.spec), _numbers(files.spec)
    wrong = [f"{name} {got[name]} in the codec, {want[name]} in the language model" for name in got
             if got[name] != want[name]]  # fmt: skip
    if wrong:
        raise UserError(
            f"The codec of this base does not fit its language model: {'; '.join(wrong)}.",
            where=str(files.folder),
            fix="Use a base whose files belong together, e.g. facebook/musicgen-small.",
        )
    return codec


def _numbers(spec: CodecSpec | LMSpec) -> dict[str, int]:
    """What a codec and the language model over its tokens must agree on."""
    return {
        "codebooks": spec.n_codebooks,
        "codebook size": spec.card,
        "sample rate": spec.sample_rate_hz,
        "samples per frame": spec.hop_samples,
        "channels": spec.channels,
    }


def base_codec_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's codec, without loading it as a model."""
    return base_codec_source(files).fingerprint()
