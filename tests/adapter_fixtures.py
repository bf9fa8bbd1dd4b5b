"""Small finished adapters on the debug bases, for tests of what is done with adapters afterwards."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from adapters import adapter_files, lora
from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.fit import describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.metadata import Woodshed
from data_prep.base_files import BaseFiles, resolve_base

Q, FC = "decoder.model.decoder.layers.1.self_attn.q_proj", "decoder.model.decoder.layers.0.fc1"
CROSS, TEXT = "decoder.model.decoder.layers.0.encoder_attn.v_proj", "enc_to_dec_proj"
TABLE, HEAD = "decoder.model.decoder.embed_tokens.2", "decoder.lm_heads.1"
MODULES = (Q, FC, CROSS, TEXT)


def random_updates(
    base: Path, modules=MODULES, *, seed=0, rank=2, size=0.1, rslora=False, dora=False
) -> dict[str, LowRank]:
    """An update of each of these modules, large enough to hear."""
    weights = {name: value for part in base.glob("model*.safetensors") for name, value in load_file(part).items()}
    generator = torch.Generator().manual_seed(seed)
    updates = {}
    for module in modules:
        weight = weights[f"{module}.weight"]
        embedding = "embed_tokens" in module
        rows, columns = reversed(weight.shape) if embedding else weight.shape
        a = torch.randn(rank, columns, generator=generator)
        b = size * torch.randn(rows, rank, generator=generator)
        magnitude = weight.norm(dim=1) * (1 + 0.1 * torch.rand(rows, generator=generator)) if dora else None
        updates[module] = LowRank(a, b, 1.5 * rank, rslora, magnitude, embedding)
    return updates


def write_adapter(folder: Path, base: Path, updates=None, *, told=None, added=None, **more) -> Path:
    """An adapter folder with a description; `told` are fields of it, `added` its conditions' modules, `more` is for
    `random_updates`.
    """
    files = resolve_base(str(base))
    updates = random_updates(base, **more) if updates is None else updates
    fields = {"name": folder.name, "trigger": f"in the style of {folder.name}", "prompts": ["slow ballad"]}
    fields |= told or {}
    described = Woodshed(base=describe_base(files, updates), codec=describe_codec(files), **fields)
    return adapter_files.save(folder, updates, described, added=added)


def lm_logits(files: BaseFiles, updates=None) -> torch.Tensor:
    """Logits of a fixed batch, with or without updates attached."""
    lm = load_lm(files)
    if updates:
        lora.attach_updates(lm, updates)
    return logits_of(lm)


def logits_of(lm) -> torch.Tensor:
    """Logits of a fixed batch."""
    inputs, conditions = fixed_batch(lm.card, lm.n_codebooks, lm.spec.text_width)
    with torch.no_grad():
        return lm(inputs, conditions)


def fixed_batch(card: int, n_codebooks: int, text_width: int) -> tuple[torch.Tensor, Conditions]:
    """Codes and conditions, the same each time."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(0, card + 1, (2, n_codebooks, 6), generator=generator)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return inputs, Conditions.of_text(torch.randn(2, 3, text_width, generator=generator), mask)
