"""Another family of models, as small as it can be: what docs/extending.md walks through, and the test of the ports.

A recurrence where MusicGen is a Transformer; the parallel pattern; a codec of its own at 25 Hz, 3 codebooks; a
condition of its own, a level per frame. No line of the product knows it: `register_toy` tells the registries.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapters.conditions import Conditions
from adapters.family import port
from adapters.family.lm import LM
from adapters.tensor_stream import StoredTensors
from data_prep import families
from data_prep.codec import registry
from data_prep.codec.port import Codec
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.condition_sources import registry as condition_registry
from data_prep.condition_sources.port import ConditionSource
from data_prep.debug_base import write_debug_base
from data_prep.families import BaseFormat, Problem
from data_prep.lm_spec import TEXT, ConditionKind, LMSpec

RATE_HZ, HOP, K, CARD, WIDTH = 16_000, 640, 3, 16, 8
LEVEL = ConditionKind("level", 1, per="frame", enters="frames", rate_hz=RATE_HZ / HOP)
"""A condition of its own: how loud each frame should be."""


class ToyFormat(BaseFormat):
    """toy.safetensors beside a T5 and its tokenizer."""

    family = "toy"
    needed_files = ("config.json", "*.safetensors", "tokenizer*")
    parts = {"codec": "codec", "text_encoder": "text_encoder"}  # noqa: RUF012

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "toy"

    def problems(self, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
        if not (folder / "toy.safetensors").exists():
            yield "its toy.safetensors is missing.", "Write it again."

    def spec(self, folder: Path, config: Mapping[str, Any]) -> LMSpec:
        return LMSpec(
            family="toy",
            codec="toy_codec",
            sample_rate_hz=RATE_HZ,
            hop_samples=HOP,
            channels=1,
            n_codebooks=K,
            card=CARD,
            lags=(0,) * K,
            hidden=WIDTH,
            layers=2,
            heads=1,
            ffn=WIDTH,
            conditions=(ConditionKind(TEXT, config["text_encoder"]["d_model"]), LEVEL),
            window_sec=20.0,
        )

    def weight_files(self, folder: Path) -> list[Path]:
        return [folder / "toy.safetensors"]

    def module_kind(self, module: str) -> str | None:
        return "recurrence" if module.startswith("layers.") else None


class ToyLayer(nn.Module):
    """h ← tanh(mix of the step before and of what comes in); the text's mean is added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.onward = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, S, D]
        h, states = torch.zeros_like(x[:, 0]), []
        for step in self.inward(x).unbind(1):
            h = torch.tanh(step + self.onward(h))
            states.append(h)
        return x + torch.stack(states, dim=1)


class ToyLM(LM):
    def __init__(self, spec: LMSpec) -> None:
        super().__init__(spec)
        self.tables = nn.ModuleList(nn.Embedding(CARD + 1, WIDTH) for _ in range(K))
        self.text = nn.Linear(spec.text_width, WIDTH, bias=False)
        self.level = nn.Linear(1, WIDTH, bias=False)
        self.layers = nn.ModuleList(ToyLayer() for _ in range(spec.layers))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CARD, bias=False) for _ in range(K))
        self.requires_grad_(False)
        self.eval()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def dtype(self) -> torch.dtype:
        return self.text.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.text.weight.device

    def forward(self, inputs: Tensor, conditions: Conditions) -> Tensor:
        x = torch.stack([table(inputs[:, k]) for k, table in enumerate(self.tables)]).sum(0)  # [B, S, D]
        text = conditions[TEXT]
        mask = text.mask[..., None].to(self.dtype)
        x = x + self.text((text.values.to(self.dtype) * mask).sum(1) / mask.sum(1).clamp_min(1))[:, None]
        level = conditions[LEVEL.name]
        wanted = (self.level(level.values.to(self.dtype)) * level.mask[..., None])[:, : x.shape[1]]  # [B, n, D]
        x = x + nn.functional.pad(wanted, (0, 0, 0, x.shape[1] - wanted.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return torch.stack([head(x) for head in self.heads], dim=1)  # [B, K, S, card]


class ToyFamily(port.Family):
    name = "toy"
    targets = {"recurrence": r"layers\.\d+\.(inward|onward)", "text": "text"}  # noqa: RUF012

    def from_spec(self, spec: LMSpec) -> LM:
        return ToyLM(spec)

    def stored(self, files: Any) -> StoredTensors:
        stored = StoredTensors(files.weight_files)
        return stored.only(name for name in stored if not name.startswith(("text_encoder.", "codec.")))

    def is_quantised(self, name: str) -> bool:
        return False


class Level(ConditionSource):
    """Mean level of every codec frame; silence has none."""

    kind = LEVEL.name
    version = 1
    usual = "mix"

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        return RATE_HZ

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        return {"hop": HOP}

    def values(self, audio: np.ndarray, kind: ConditionKind) -> np.ndarray | None:
        frames = np.pad(audio, (0, -len(audio) % HOP)).reshape(-1, HOP)
        level = np.abs(frames).mean(1, keepdims=True).astype(np.float32)
        return level if level.max() > 1e-4 else None


class ToyCodec(Codec):
    """Three bits of loudness, brightness and sign a frame: no music, but as long as its codes say."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def context_frames(self) -> int | None:
        return 0

    def encode(self, clips: Sequence[Tensor]) -> list[np.ndarray]:
        return [self._codes(clip[0]) for clip in clips]

    def _codes(self, samples: Tensor) -> np.ndarray:
        n_frames = -(-len(samples) // HOP)
        frames = nn.functional.pad(samples, (0, n_frames * HOP - len(samples))).view(n_frames, HOP)
        loud, bright = frames.abs().mean(1), frames.diff(dim=1).abs().mean(1)
        levels = [loud, bright, (frames > 0).float().mean(1)]
        return torch.stack([(level * 40).long().clamp(0, CARD - 1) for level in levels]).numpy().astype(np.int16)

    def decode_whole(self, codes: Tensor) -> Tensor:
        tone = torch.sin(torch.arange(HOP) * 0.2)
        return (codes[0][:, None] / CARD * tone).reshape(1, -1)


def load_toy_codec(source: CodecSource, device: str | torch.device = "cpu") -> ToyCodec:
    return ToyCodec(CodecSpec(RATE_HZ, HOP, 1, K, CARD), source.fingerprint())


def register_toy() -> None:
    """Make the toy known."""
    families.register(ToyFormat())
    condition_registry.register(Level())
    port.register(ToyFamily())
    if "toy_codec" not in registry.KINDS:
        registry.register("toy_codec", load_toy_codec)


def write_toy_base(folder: Path) -> Path:
    """A random toy base: the debug base's text encoder and tokenizer, and weights of its own."""
    write_debug_base(folder)
    tensors = {n: t for n, t in load_file(folder / "model.safetensors").items() if n.startswith("text_encoder.")}
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", "text_encoder": config["text_encoder"]}))
    torch.manual_seed(0)
    lm = ToyLM(ToyFormat().spec(folder, {"text_encoder": config["text_encoder"]}))
    tensors |= {name: tensor.clone() for name, tensor in lm.state_dict().items()} | {"codec.seed": torch.ones(4)}
    save_file(tensors, folder / "toy.safetensors", metadata={"format": "pt"})
    return folder
