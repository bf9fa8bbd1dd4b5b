"""Small Magenta RealTime 2 models of several sizes with fixed inputs: what parity is tested on."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.family.load import load_lm
from adapters.family.magenta_rt2.conditions import ID_OFFSET, MagentaConditions
from adapters.family.magenta_rt2.lm import MagentaLM
from configs.precisions import BaseWeights
from data_prep.base_files import resolve_base
from data_prep.codec.spectrostream.shape import CodecShape
from data_prep.magenta_rt2.debug_base import TINY, TINY_CODEC, write_debug_mrt2
from data_prep.magenta_rt2.sizes import MagentaSpec, StackSize

REFERENCES = Path(__file__).with_name("references")
OFFICIAL = Path(__file__).with_name("mrt2_official.py")
N_FRAMES = 14
N_SAMPLES = 1920 * 4 + 700
TINY_TWO = MagentaSpec(StackSize(3, 24, 40, 3, 8), StackSize(1, 24, 32, 2, 16), 12, 4, style_width=6, card=32)
"""Another size, whose two stacks are equally wide: there is no adapter between them then."""
CODEC_TWO = CodecShape(encoder_width=2, decoder_width=1, features=6, levels=12, card=32)
CASES: dict[str, tuple[MagentaSpec, CodecShape, int]] = {
    "tiny": (TINY, TINY_CODEC, 0),
    "tiny_again": (TINY, TINY_CODEC, 1),
    "other_size": (TINY_TWO, CODEC_TWO, 2),
}


def write_case(name: str, folder: Path) -> Path:
    spec, codec, seed = CASES[name]
    return write_debug_mrt2(folder, spec=spec, codec=codec, seed=seed)


def magenta_lm(folder: Path, weights: BaseWeights = "fp32") -> MagentaLM:
    """The language model of a base."""
    found = load_lm(resolve_base(str(folder)), weights=weights)
    assert isinstance(found, MagentaLM)
    return found


def case_inputs(name: str) -> dict[str, Tensor]:
    """Random conditions, some of them unknown, random codes and audio."""
    spec, _, seed = CASES[name]
    draw = torch.Generator().manual_seed(100 + seed)

    def between(low: int, high: int, width: int) -> Tensor:
        return torch.randint(low, high, (1, N_FRAMES, width), generator=draw)

    kinds = ((-1, 1024, 12), (-1, 4, 128), (-1, 2, 1), (0, 41, 2), (0, 9, 1))
    ids = torch.cat([between(*kind) for kind in kinds], dim=2) + ID_OFFSET
    codes = torch.randint(0, spec.card, (1, spec.n_codebooks, N_FRAMES), generator=draw)
    audio = torch.randn(2, N_SAMPLES, generator=draw) * 0.3
    return {"ids": ids.int(), "codes": codes.int(), "audio": audio}


def conditions_of(ids: Tensor) -> MagentaConditions:
    values = ids.long() - ID_OFFSET
    return MagentaConditions(values[..., :12], values[..., 12:140], values[..., 140:141], values[..., 141:])


def write_request(name: str, folder: Path) -> tuple[Path, Path]:
    """What the official code is asked: sizes and inputs."""
    spec, codec, _ = CASES[name]
    (folder / "spec.json").write_text(json.dumps({"lm": asdict(spec), "codec": asdict(codec)}))
    save_file(case_inputs(name), folder / "inputs.safetensors")
    return folder / "spec.json", folder / "inputs.safetensors"


def reference(name: str) -> dict[str, Tensor]:
    """What the official code made of a case, stored: magenta-rt 2.0.3, jax 0.10.2."""
    return load_file(REFERENCES / f"mrt2_{name}.safetensors")


PACKAGES = ("magenta-rt[jax]==2.0.3",)
"""The official code; it has its own pins, so it lives in an environment of its own (about 1 GB)."""


def official_environment(folder: Path) -> Path:
    """The Python of an environment with the official package: $WOODSHED_MRT2_PYTHON, or one made in `folder`."""
    given = os.environ.get("WOODSHED_MRT2_PYTHON")
    if given:
        return Path(given)
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed; WOODSHED_MRT2_PYTHON may name a Python that has magenta-rt[jax]")
    subprocess.run([uv, "venv", "-q", "--python", "3.11", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    return python
