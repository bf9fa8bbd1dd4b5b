"""Which codec a person means: a base (`starter`, a MusicGen folder or hub id), or a codec's own folder or hub id."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep import weight_file
from data_prep.base_files import DEBUG_BASES, BaseFiles, from_hub, load_tensors, resolve_base
from data_prep.checkpoint_files import checkpoint_files
from data_prep.codec.registry import KINDS, base_codec_source, load_codec
from data_prep.codec.source import CodecSource
from data_prep.families import format_of
from data_prep.move import CodecChoice

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


def choose(id: str, channels: int) -> CodecChoice:
    """What an id means as the codec under a base of so many channels: loaded once, for its numbers.

    Raises:
        UserError: as `resolve_codec`, or it cannot be used for that.
    """
    source = resolve_codec(id, channels=channels)
    codec = load_codec(source)
    if codec.channels != channels:
        raise UserError(
            f"The codec `{id}` reads {codec.channels} channels, the base plays {channels}.",
            where="codec",
            fix="Give a codec with as many channels, or a mono one.",
        )
    return CodecChoice(id, source.kind, source.fingerprint(), codec.spec)


def resolve_choice(choice: CodecChoice) -> CodecSource:
    """Where the codec of this choice is.

    Raises:
        UserError: not found, or another than is meant.
    """
    source = resolve_codec(choice.id, channels=choice.shape.channels)
    found = source.fingerprint()
    if found != choice.fingerprint:
        raise UserError(
            f"This is not the codec that was trained with: its fingerprint is {found}, not {choice.fingerprint}.",
            where=str(source.where),
            fix="Give the folder or hub id of that one as --codec.",
        )
    return source


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
