"""Which codec a person means: a base (`starter`, a MusicGen folder or hub id), or a codec's own folder or hub id."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep import weight_file
from data_prep.base_files import DEBUG_BASES, BaseFiles, from_hub, load_tensors, resolve_base
from data_prep.checkpoint_files import checkpoint_files
from data_prep.codec.registry import KINDS, base_codec_source
from data_prep.codec.source import CodecSource
from data_prep.families import format_of

BASES = (*DEBUG_BASES, "starter")


def resolve_codec(id: str, revision: str | None = None, *, channels: int | None = None) -> CodecSource:
    """Find a codec's files, fetching them where needed, and check that they can be used.

    Args:
        id: a base, whose own codec is meant, or a codec's folder or hub id, e.g. `descript/dac_44khz`.
        revision: commit, tag or branch on the hub.
        channels: of the audio that a codec of its own will read; None: as many as it has. A base decides itself.

    Raises:
        UserError: not found, of an unknown kind, or its weights are missing or pickled.
    """
    if id in BASES:
        return base_codec_source(resolve_base(id))
    folder = Path(id).expanduser()
    if not (folder / "config.json").exists() and format_of(folder) is not None:
        return base_codec_source(resolve_base(id))
    files = BaseFiles(id, None, folder.resolve()) if folder.is_dir() else from_hub(id, revision)
    config = _config(files)
    kind = config.get("model_type")
    if kind not in KINDS:
        return base_codec_source(resolve_base(id, revision))
    _check_weights(files)
    return CodecSource(kind, config, partial(load_tensors, files, ""), files.folder, channels)


def _config(files: BaseFiles) -> dict[str, Any]:
    try:
        config = json.loads((files.folder / "config.json").read_text("utf-8"))
        if isinstance(config, dict):
            return config
        problem: Exception = ValueError("no JSON object")
    except (OSError, ValueError) as error:
        problem = error
    raise UserError(
        f"Cannot use `{files.id}` as a codec: its config.json cannot be read ({problem}).",
        where=str(files.folder),
        fix="Give a folder written by `save_pretrained`, or a hub id such as descript/dac_44khz.",
    )


def _check_weights(files: BaseFiles) -> None:
    missing = [path for path in checkpoint_files(files.folder) if not path.exists()]
    problem = "its weights in safetensors are missing" if missing else None
    problem = problem or next(filter(None, map(weight_file.problem, checkpoint_files(files.folder))), (None, None))[0]
    if problem:
        raise UserError(
            f"Cannot use `{files.id}` as a codec: {problem}.",
            where=str(files.folder),
            fix="Fetch it again, or save it with `save_pretrained`, which writes safetensors.",
        )
