"""Adapters as one file with the names and metadata of kohya's sd-scripts, which many LoRA tools read.

A module `a.b.c` becomes `lora_unet_a_b_c.lora_down.weight` (A), `.lora_up.weight` (B) and `.alpha`, a number beside
them: ΔW = alpha / rank · up · down (https://github.com/kohya-ss/sd-scripts, networks/lora.py). DoRA's magnitude is
`.dora_scale` [out, 1], as LyCORIS writes it when it norms over inputs. docs/conversions.md has the list of keys.
Flat names cannot be undone in general; MusicGen's can, because its modules are known.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.low_rank import LowRank
from adapters.safe_files import read_tensors
from configs.errors import UserError
from data_prep.safe_write import check_new, write_bytes

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter

PREFIX = "lora_unet_"
PARTS = ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale")
NAMES = (
    (
        re.compile(r"decoder_model_decoder_layers_(\d+)_(self_attn|encoder_attn)_(q_proj|k_proj|v_proj|out_proj)"),
        r"decoder.model.decoder.layers.\1.\2.\3",
    ),
    (re.compile(r"decoder_model_decoder_layers_(\d+)_(fc1|fc2)"), r"decoder.model.decoder.layers.\1.\2"),
    (re.compile(r"decoder_model_decoder_embed_tokens_(\d+)"), r"decoder.model.decoder.embed_tokens.\1"),
    (re.compile(r"decoder_lm_heads_(\d+)"), r"decoder.lm_heads.\1"),
    (re.compile(r"(enc_to_dec_proj|audio_enc_to_dec_proj)"), r"\1"),
)


def to_kohya(adapter: "Adapter", out: Path) -> None:
    """Write one .safetensors file in kohya's layout.

    Raises:
        UserError: `out` is taken, or the disk is full or refuses.
    """
    from safetensors.torch import save

    check_new(out, "file")
    tensors: dict[str, Tensor] = {}
    for module, update in adapter.updates.items():
        flat, plain = flat_name(module), update.plain()
        tensors[f"{flat}.lora_down.weight"] = plain.a.contiguous()
        tensors[f"{flat}.lora_up.weight"] = plain.b.contiguous()
        tensors[f"{flat}.alpha"] = torch.tensor(plain.alpha, dtype=torch.float32)
        if plain.magnitude is not None:
            tensors[f"{flat}.dora_scale"] = plain.magnitude[:, None].contiguous()
    write_bytes(out, save(tensors, metadata=_metadata(adapter)))


def from_kohya(path: Path) -> tuple[dict[str, LowRank], str]:
    """Updates by module, and the base that the file names (empty where it names none).

    Raises:
        UserError: a pickle, a damaged file, or tensors that are no LoRA of a MusicGen.
    """
    tensors, metadata = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, part = _split(key, path)
        parts.setdefault(module, {})[part] = tensor
    if not parts:
        raise _unfit("it holds no tensors", path)
    return {module: _update(module, parts[module], path) for module in sorted(parts)}, metadata.get(
        "ss_sd_model_name", ""
    )


def flat_name(module: str) -> str:
    """`decoder.lm_heads.0` → `lora_unet_decoder_lm_heads_0`."""
    return PREFIX + module.replace(".", "_")


def _split(key: str, path: Path) -> tuple[str, str]:
    flat, _, part = key.removeprefix(PREFIX).partition(".")
    found = next((m.expand(name) for pattern, name in NAMES if (m := pattern.fullmatch(flat))), None)
    if not key.startswith(PREFIX) or part not in PARTS or found is None:
        raise _unfit(f"it holds {key[:120]!r}, which is no part of a MusicGen LoRA", path)
    return found, part


def _update(module: str, found: Mapping[str, Tensor], path: Path) -> LowRank:
    a, b = found.get("lora_down.weight"), found.get("lora_up.weight")
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
        raise _unfit(f"{module} has no down and up weights that fit each other", path)
    alpha, magnitude = found.get("alpha"), found.get("dora_scale")
    if alpha is not None and alpha.numel() != 1:
        raise _unfit(f"the alpha of {module} is not one number", path)
    if magnitude is not None and magnitude.shape not in ((b.shape[0], 1), (b.shape[0],)):
        raise _unfit(f"the dora_scale of {module} has {list(magnitude.shape)} numbers for {b.shape[0]} outputs", path)
    return LowRank(
        a,
        b,
        float(a.shape[0]) if alpha is None else float(alpha),  # sd-scripts: without an alpha, it is the rank
        magnitude=None if magnitude is None else magnitude.reshape(-1),
        embedding="embed_tokens" in module,
    )


def _metadata(adapter: "Adapter") -> dict[str, str]:
    updates = [update.plain() for update in adapter.updates.values()]
    ranks, alphas = {update.rank for update in updates}, {update.alpha for update in updates}
    told = adapter.woodshed
    own = {
        "ss_output_name": adapter.label,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alphas.pop():g}" if len(alphas) == 1 else "Dynamic",
        "ss_base_model_version": "musicgen",
        "ss_sd_model_name": adapter.base_id,
    }
    if told is not None and told.training is not None:
        own["ss_steps"] = str(told.training.steps)
    if told is not None and told.data is not None:
        own["ss_num_train_items"] = str(told.data.n_clips)
    if told is not None and told.trigger:
        own["ss_tag_frequency"] = json.dumps({"woodshed": {told.trigger: 1}}, ensure_ascii=False)
    return {"format": "pt", **(told.flat() if told else {}), **own}


def _unfit(why: str, path: Path) -> UserError:
    return UserError(
        f"{path.name} cannot be used: {why}.", where=str(path), fix="Ask for it again, or as a PEFT folder."
    )
