"""Random Magenta RealTime 2 bases in the official layout: a tiny one for trying and testing, true sizes for timing.

The weights mean nothing, but they are scaled so that nothing is degenerate: logits differ, the codec is neither silent
nor constant. The style model is not part of it (`data_prep.style_tokens` has a stand-in).
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from data_prep.codec.spectrostream.layout import codec_shapes
from data_prep.codec.spectrostream.shape import CodecShape
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.files import STAND_IN, STYLE_KEY, WINDOW_KEY
from data_prep.magenta_rt2.sizes import MagentaSpec, StackSize

TINY = MagentaSpec(StackSize(2, 16, 32, 2, 8), StackSize(2, 12, 24, 2, 6), 8, 6, style_width=4, card=64)
TINY_CODEC = CodecShape(encoder_width=1, decoder_width=2, features=4, levels=16, card=64)
CHECKPOINT_NAME = "mrt2_debug"


def write_debug_mrt2(
    folder: Path,
    *,
    spec: MagentaSpec = TINY,
    codec: CodecShape | None = TINY_CODEC,
    name: str = CHECKPOINT_NAME,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Write a complete base: by default about 90,000 weights. Without `codec`, the language model alone.

    `dtype` is that of the language model; the codec is float32.
    """
    from safetensors.torch import save_file

    lm = {name: _drawn(name, shape, seed).to(dtype) for name, shape in layout.lm_shapes(spec).items()}
    parts: dict[str, Tensor] = {}
    if codec is not None:
        parts = {name: _drawn(name, shape, seed) for name, shape in codec_shapes(codec).items()}
        target = folder / "resources" / "spectrostream"
        target.mkdir(parents=True, exist_ok=True)
        for part in ("encoder", "decoder", "quantizer"):
            save_file(_under("params/", parts, part), target / f"{part}.safetensors")
    beside = {**_under(layout.CODEC, parts, "decoder"), **_under(layout.CODEC, parts, "quantizer")}
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoints" / f"{name}.safetensors"
    save_file({**lm, **beside}, checkpoint, metadata={WINDOW_KEY: str(spec.window_frames), STYLE_KEY: STAND_IN})
    return folder


def cached_debug_mrt2(cache: Path) -> Path:
    """The folder of the `debug-mrt2` base, written on first use; its name follows the code that writes it."""
    sources = (Path(__file__), Path(layout.__file__))
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = cache / f"debug-mrt2-{version}"
    if folder.is_dir():
        return folder
    import shutil
    import tempfile

    cache.mkdir(parents=True, exist_ok=True)
    made = write_debug_mrt2(Path(tempfile.mkdtemp(dir=cache)) / "base")
    try:
        made.rename(folder)
    except OSError:  # another process was first
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(made.parent, ignore_errors=True)
    return folder


def _under(prefix: str, tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Values of one tensor, from its name, its shape and the seed alone."""
    own = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(own))
    if name == "quantizer/embedding":
        return drawn * 0.7 ** torch.arange(shape[0])[:, None, None]  # each level says less than the one before
    if len(shape) < 2:
        return drawn * 0.2 + (1 if name.endswith("scale") and "per_dim" not in name else 0)
    return drawn / math.sqrt(_fan(name, shape))


def _fan(name: str, shape: tuple[int, ...]) -> int:
    """How many inputs each output sums: attention and dense kernels by layout, embeddings by their width."""
    if name.endswith("embedding") or "/sink_" in name:
        return shape[-1]
    if "projection/kernel" in name and "output" not in name:
        return shape[0]
    if "output_projection" in name:
        return shape[1] * shape[2]
    return math.prod(shape[:-1])
