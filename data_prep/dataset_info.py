"""prep.yaml: what a dataset was made with, so that training can check that it fits."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from configs.prep import AUTO, PrepSettings
from data_prep.base_files import BaseFiles
from data_prep.prepared import FORMAT, FORMAT_VERSION

_PACKAGES = ("woodshed", "torch", "transformers", "datasets", "av", "librosa", "demucs", "numpy")


def dataset_info(
    settings: PrepSettings,
    files: BaseFiles,
    *,
    codec: str,
    text_encoder: str,
    separator: dict[str, str] | None,
    conditions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything but the clips: plain values only.

    Args:
        settings: as resolved.
        files: the base.
        codec: fingerprint of its codec.
        text_encoder: fingerprint of its text encoder.
        separator: model and fingerprint, None where no stems were made.
        conditions: what each kind beside the tokens was made from and how, by kind.
    """
    spec, move = files.spec, files.move
    other_text = {} if move.text is None else {"id": move.text.id}
    other_codec = {} if move.codec is None else {"id": move.codec.id, "kind": move.codec.kind}
    here = {"device", "workers", "batch_size", "cluster"}
    unsaid = {name for name in ("melody", "beat") if getattr(settings, name) == AUTO}
    unsaid |= {name for name in ("text_encoder", "codec") if getattr(settings, name) is None}
    unsaid |= {"pair", "multitracks", "stem_names"} if settings.pair is None else {"stem_names"}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "base": {"id": files.id, "revision": files.revision},
        "codec": {
            "fingerprint": codec,
            "channels": spec.channels,
            "n_codebooks": spec.n_codebooks,
            "card": spec.card,
            "sample_rate_hz": spec.sample_rate_hz,
            "hop_samples": spec.hop_samples,
            "frame_rate": spec.frame_rate,
            **other_codec,
        },
        "text_encoder": {"fingerprint": text_encoder, "width": spec.text_width, **other_text},
        "separator": separator,
        **({"conditions": dict(conditions)} if conditions else {}),
        "settings": settings.model_dump(mode="json", exclude=here | unsaid),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
