"""Adapters merged into their base: a folder that transformers loads, the base's own with other weights.

Each weight becomes W + Σ strength · ΔW, computed in fp32 and rounded once, tensor by tensor from the base's files to
the new ones, so that a model larger than memory passes through. DoRA's ΔW is taken against the base's own W each time:
adapters are added, not applied one after another, and their order does not matter.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from adapters.adapter_files import Adapter
from adapters.added_conditions.files import refuse_added
from adapters.card import plain
from adapters.family.lm import DTYPES
from adapters.family.port import family_of
from adapters.fit import check_fit
from adapters.low_rank import LowRank, merged_weight
from adapters.metadata import license_of, public_id
from adapters.moved import refuse_moved
from adapters.tensor_stream import rewrite
from configs.errors import UserError
from data_prep.codec.source import plain_name
from data_prep.safe_write import check_new, folder_beside

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

INDEX = "model.safetensors.index.json"
NOT_COPIED = (".safetensors", ".bin", ".h5", ".msgpack", ".md", ".wav", ".mp3", ".gitattributes")
Strengths = Sequence[tuple[Adapter, float]]


def merge(
    files: "BaseFiles",
    adapters: Strengths,
    out: Path,
    *,
    dtype: Literal["base", "fp32", "bf16", "fp16"] = "base",
    force: bool = False,
    decoder: Path | None = None,
) -> list[str]:
    """Write the merged model into the new folder `out`, complete or not at all. Returns what `force` let pass.

    `dtype` is that of every floating-point tensor written; `base` keeps each as it is. `decoder` is a file of
    `woodshed codec tune` for this base's codec: it takes the place of the codec's decoder.

    Raises:
        UserError: `out` is there already, the base is quantised, an adapter does not fit it, or the disk refuses.
    """
    check_new(out)
    refuse_added([adapter for adapter, _ in adapters], "merged: a base cannot hold the weights of its condition")
    refuse_moved(
        [adapter for adapter, _ in adapters],
        "merged: transformers itself plays MusicGen with delays, its own text encoder and its own codec only",
    )
    if files.config.get("quantization_config") is not None:
        raise UserError(
            "This base is quantised: merging into it would round the adapter away.",
            where=str(files.folder),
            fix="Give the unquantised base.",
        )
    sound = tuned_for(files, decoder) if decoder is not None else {}
    forced = [note for adapter, _ in adapters for note in check_fit(adapter, files, force=force)]
    with folder_beside(out) as made:
        copy_rest(files, made, dtype)
        _write_weights(files, adapters, made, dtype, sound)
        (made / "README.md").write_text(_card(files, adapters, decoder), encoding="utf-8")
    return forced


def tuned_for(files: "BaseFiles", decoder: Path) -> dict[str, Tensor]:
    """A tuned decoder's tensors by the names that they have in the base, weight norm spelt the older way.

    Raises:
        UserError: it was tuned for another codec, or does not fit this one.
    """
    from data_prep.codec.registry import load_base_codec
    from data_prep.codec.tuned_decoder import decoder_of, use_decoder

    codec = load_base_codec(files)
    use_decoder(codec, decoder)
    part = files.format.parts.get("codec")
    if part is None:
        raise UserError(
            f"A tuned decoder cannot be put into a {files.spec.family} base.", fix="Leave the decoder out of the merge."
        )
    return {f"{part}.decoder.{plain_name(k)}": v for k, v in decoder_of(codec).state_dict().items()}


def _write_weights(
    files: "BaseFiles", adapters: Strengths, made: Path, dtype: str, sound: Mapping[str, Tensor]
) -> None:
    updates, family, root = _by_weight(adapters), family_of(files), files.format.root(files.folder)
    met: set[str] = set()

    def dtype_of(name: str, own: torch.dtype) -> torch.dtype:
        ours = dtype != "base" and own.is_floating_point and len(family.parts_of(files, name)) > 0
        return DTYPES[dtype] if ours else own

    def merged(name: str, weight: Tensor) -> Tensor:
        return merged_weight(weight, updates[name]) if name in updates else weight.float()

    @torch.no_grad()
    def change(name: str, tensor: Tensor) -> Tensor:
        touched = updates.keys() & set(family.parts_of(files, name))
        met.update(touched)
        plain = sound.get(plain_name(name), tensor)
        return (family.changed(files, name, tensor, merged) if touched else plain).to(dtype_of(name, tensor.dtype))

    weight_map, total = {}, 0
    shards = files.weight_files
    for shard in shards:
        target = made / shard.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        sizes = rewrite(shard, target, dtype_of, change)
        weight_map |= dict.fromkeys(sizes, shard.name)
        total += sum(sizes.values())
    lost = updates.keys() - met
    assert not lost, lost  # check_fit has seen every one of them
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (made / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _by_weight(adapters: Strengths) -> Mapping[str, list[tuple[LowRank, float]]]:
    found: dict[str, list[tuple[LowRank, float]]] = {}
    for adapter, strength in adapters:
        for module, update in adapter.updates.items():
            found.setdefault(f"{module}.weight", []).append((update, strength))
    return found


def copy_rest(files: "BaseFiles", made: Path, dtype: str) -> None:
    """Configuration, tokenizer and processor as they are; the configuration names the new dtype."""
    root = files.format.root(files.folder)
    for path in sorted(root.iterdir()):
        if path.is_file() and not path.name.endswith((*NOT_COPIED, INDEX)):
            shutil.copyfile(path, made / path.name)
    for name in files.format.folders_beside:
        if (root / name).is_dir():
            shutil.copytree(root / name, made / name)
    if dtype != "base" and (made / "config.json").exists():
        config = json.loads((made / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        config["dtype"] = str(DTYPES[dtype]).removeprefix("torch.")
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _card(files: "BaseFiles", adapters: Strengths, decoder: Path | None) -> str:
    import yaml

    base = public_id(files)
    front = {"library_name": "transformers"} if files.format.transformers_class else {}
    front |= {"pipeline_tag": "text-to-audio", "license": license_of(base)}
    if "/" in base:
        front |= {"base_model": base, "base_model_relation": "finetune"}
    parts = "\n".join(f"- {plain(adapter.label)} at strength {strength:g}" for adapter, strength in adapters)
    parts += f"\n- the codec's decoder is a tuned one ({plain(decoder.name)})" if decoder else ""
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {plain(base)}, merged\n\n{plain(base)} with these adapters merged in:\n\n{parts}\n"
