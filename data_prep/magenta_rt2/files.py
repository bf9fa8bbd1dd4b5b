"""A Magenta RealTime 2 on disk, in the official layout: where its parts are, and reading them safely. No torch.

checkpoints/mrt2_small.safetensors       the language model, and the codec's decoder and quantiser beside it
resources/spectrostream/*.safetensors    encoder; decoder and quantiser once more
resources/musiccoca/*.tflite, spm.model  the style model
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import UserError
from data_prep import weight_file
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.sizes import MagentaSpec, spec_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_prep.codec.port import Codec
    from data_prep.codec.source import CodecSource

WINDOW_KEY = "woodshed_window_frames"
"""Metadata of a checkpoint that is of no official size: how many frames a layer looks back."""
STYLE_KEY, STAND_IN = "woodshed_style", "stand-in"
"""Metadata of a random checkpoint: there is no style model for it, `data_prep.style_tokens` has a stand-in."""
CODEC_FILES = ("encoder", "decoder", "quantizer")
HUB_PATTERNS = ("resources/spectrostream/*", "resources/musiccoca/*")
"""Of the hub's folder, what is needed beside one checkpoint."""
AGAIN = "Fetch or copy it again."


@dataclass(frozen=True)
class MagentaFiles:
    """One base: a folder and the checkpoint in it that is meant."""

    id: str
    revision: str | None
    folder: Path
    checkpoint: Path

    @property
    def codec_folder(self) -> Path:
        """Where the codec's own files are."""
        return self.folder / "resources" / "spectrostream"

    @property
    def style_folder(self) -> Path:
        """Where the style model's files are."""
        return self.folder / "resources" / "musiccoca"

    @cached_property
    def spec(self) -> MagentaSpec:
        """The sizes of the language model.

        Raises:
            UserError: the checkpoint is damaged or of another kind.
        """
        shapes, metadata = header(self.checkpoint)
        window = metadata.get(WINDOW_KEY)
        if window is not None and not (window.isdigit() and 0 < int(window) <= 10_000):
            raise UserError(f"{WINDOW_KEY} is no number of frames: {window[:20]!r}.", where=str(self.checkpoint))
        lm = {name: shape for name, shape in shapes.items() if name.startswith(layout.LM)}
        return spec_of(lm, None if window is None else int(window), str(self.checkpoint))


def is_magenta_folder(folder: Path) -> bool:
    """Whether a folder looks like one in this layout, or a file like a checkpoint in one."""
    if folder.suffix == ".safetensors":
        return folder.parent.name == "checkpoints"
    return any((folder / "checkpoints").glob("*.safetensors"))


def root_of(folder: Path) -> Path:
    """The folder that holds checkpoints/ and resources/, also where one checkpoint in it is named."""
    return folder.parent.parent if folder.suffix == ".safetensors" else folder


def find_files(path: Path, id: str | None = None, revision: str | None = None) -> MagentaFiles:
    """The base in a folder, or the one whose checkpoint is named: `folder/checkpoints/mrt2_base.safetensors`.

    Raises:
        UserError: there is no checkpoint, more than one, or it is damaged.
    """
    named = path.suffix == ".safetensors"
    folder = path.parent.parent if named else path
    found = [path] if named else sorted((folder / "checkpoints").glob("*.safetensors"))
    if not found or not found[0].is_file():
        raise UserError(
            "There is no Magenta RealTime 2 checkpoint here.",
            where=str(path),
            fix="The folder must hold checkpoints/mrt2_small.safetensors (or mrt2_base) and resources/.",
        )
    if len(found) > 1:
        raise UserError(
            f"This folder holds {len(found)} checkpoints; say which one.",
            where=str(folder / "checkpoints"),
            fix=f"Give the file itself: {' or '.join(str(file) for file in found[:3])}.",
        )
    problem = weight_file.problem(found[0])
    if problem:
        raise UserError(problem[0], where=str(found[0]), fix=problem[1])
    return MagentaFiles(id or str(path), revision, folder, found[0])


def header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of all tensors of a file, and its metadata.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path, "numpy") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return shapes, file.metadata() or {}


def read_codec_tensors(files: MagentaFiles) -> "dict[str, Tensor]":
    """The codec's tensors by plain name: decoder and quantiser, and the encoder where its file is there.

    What stands in the checkpoint counts before what stands in resources/: it is what the official player uses.

    Raises:
        UserError: decoder or quantiser are nowhere, or a file is damaged.
    """
    from data_prep.codec.spectrostream.shape import plain_name

    tensors: dict[str, Tensor] = {}
    paths = [files.codec_folder / f"{name}.safetensors" for name in CODEC_FILES]
    for path in [*(path for path in paths if path.exists()), files.checkpoint]:
        with _opened(path, "pt") as file:
            names = [name for name in file.keys() if not name.startswith(layout.LM)]  # noqa: SIM118
            tensors.update({plain_name(name): file.get_tensor(name) for name in names})
    missing = [part for part in ("decoder", "quantizer") if not any(name.startswith(part) for name in tensors)]
    if missing:
        raise UserError(
            f"The codec's {' and '.join(missing)} is missing.",
            where=f"neither in {files.checkpoint} nor in {files.codec_folder}",
            fix="Fetch the base again; `mrt models init` of the official package fetches resources/spectrostream.",
        )
    return tensors


def codec_source(files: MagentaFiles) -> "CodecSource":
    """The codec inside a base, for `data_prep.codec.registry.load_codec`."""
    from data_prep.codec.spectrostream.codec import SpectroStreamSource

    return SpectroStreamSource(
        kind="spectrostream",
        config={"n_codebooks": files.spec.n_codebooks},
        tensors=partial(read_codec_tensors, files),
        where=files.folder,
        channels=2,
    )


def load_magenta_codec(files: MagentaFiles, device: "str | torch.device" = "cpu") -> "Codec":
    """Load only the codec of a base. Without resources/spectrostream/encoder.safetensors it decodes only.

    Raises:
        UserError: its tensors are missing, incomplete, or do not fit the language model.
    """
    from data_prep.codec.registry import load_codec

    codec = load_codec(codec_source(files), device)
    if codec.card != files.spec.card:
        raise UserError(
            f"The codec of this base has {codec.card} codes a codebook, its language model {files.spec.card}.",
            where=str(files.folder),
            fix="Use checkpoint and resources of one release.",
        )
    return codec


def _opened(path: Path, framework: str):
    from safetensors import SafetensorError, safe_open

    problem = weight_file.problem(path)
    if problem:
        raise UserError(problem[0], where=str(path), fix=problem[1])
    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path.name} cannot be read: {error}.", where=str(path), fix=AGAIN) from error
