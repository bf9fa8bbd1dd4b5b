"""Load a Demucs model: one of the published ones by name, or a local folder.

Published models come through demucs itself, which fetches and keeps them. A local folder holds a bag (`name.yaml`:
`models`, and perhaps `weights`) and a file per model, `<sig>.safetensors` or `<sig>.th`, as demucs lays them out. A
`.th` file is a pickle; it is read with torch's weights-only reader, which builds nothing but tensors and the few
classes named here, so that a folder from a stranger cannot run code. The class that a safetensors file names is held
against the same list.
"""

import difflib
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.fingerprint import fingerprint
from data_prep.hub_reach import asked_once
from data_prep.overlap_add import WindowPlan

_CLASSES = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")


@dataclass(frozen=True)
class Separator:
    """A loaded model, or a bag of them whose outputs are averaged per stem."""

    name: str
    models: tuple[nn.Module, ...]
    weights: Float[Tensor, "M Q"]
    """How much each model M counts for each stem Q; every column sums to one."""
    sources: tuple[str, ...]
    sample_rate_hz: int
    channels: int
    device: torch.device
    fingerprint: str

    def plan(self, samples: int, overlap: float) -> WindowPlan:
        """The windows for a signal of that many samples: as long as the models were trained on."""
        first: Any = self.models[0]
        window = int(first.segment * self.sample_rate_hz)
        padded = first.valid_length(window) if hasattr(first, "valid_length") else window
        return WindowPlan(samples, window, padded, overlap)

    @torch.inference_mode()
    def run(self, windows: Float[Tensor, "B C W"], wanted: frozenset[str]) -> Float[Tensor, "B Q C W"]:
        """All stems of a batch of windows, in the order of `sources`; those not wanted may be zero.

        Models of a bag that say nothing about a wanted stem are not run: vocals from htdemucs_ft take one of its
        four. Always in float32: bf16 on a CPU without its instructions is 30 times slower, and its error is 33 dB
        below a loud stem but only 8 dB below a quiet one.
        """
        columns = [index for index, source in enumerate(self.sources) if source in wanted]
        inputs = windows.to(self.device)
        total: Tensor | None = None
        for model, weight in zip(self.models, self.weights, strict=True):  # asked on the host: nobody waits for a GPU
            if not weight[columns].any():
                continue
            part = model(inputs) * weight.to(self.device)[:, None, None]  # [B, Q, C, W]
            total = part if total is None else total + part
        if total is None:
            raise ValueError(f"no stems wanted of {self.sources}")
        return total


def load_separator(model: str, device: str = "cpu") -> Separator:
    """Load a separator onto a device.

    Args:
        model: htdemucs, htdemucs_ft, htdemucs_6s, another name that demucs publishes, or a local folder (`folder/name`
            where it holds several).
        device: cpu, cuda, or cuda:1 and so on.

    Raises:
        UserError: no such model, it cannot be fetched, or the folder cannot be used.
    """
    place = Path(model).expanduser()
    bag = _local_bag(place) if place.is_dir() or _yaml(place).is_file() else _published_bag(model)
    weights = torch.tensor(bag.weights, dtype=torch.float32)  # [M, Q]
    tensors = {f"{i}.{name}": tensor for i, m in enumerate(bag.models) for name, tensor in m.state_dict().items()}
    tensors["weights"] = weights
    target = torch.device(device)
    return Separator(
        name=model,
        models=tuple(m.eval().requires_grad_(False).to(target) for m in bag.models),
        weights=weights / weights.sum(dim=0),
        sources=tuple(bag.sources),
        sample_rate_hz=int(bag.samplerate),
        channels=int(bag.audio_channels),
        device=target,
        fingerprint=fingerprint(tensors),
    )


def _published_bag(name: str) -> Any:
    from demucs.apply import BagOfModels
    from demucs.pretrained import REMOTE_ROOT, get_model

    known = sorted(path.stem for path in REMOTE_ROOT.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        fix = f"{guess}Use htdemucs, htdemucs_ft, htdemucs_6s, or a folder that holds a model"
        raise UserError(f"no separation model {name!r}, and no such folder", where="stems.model", fix=fix)
    try:
        with asked_once():
            loaded = get_model(name)
    except (OSError, RuntimeError, ImportError) as error:
        fix = (
            "connect to the internet once (the weights are kept afterwards), or give a folder that holds "
            f"{name}.yaml and its weights as stems.model, or learn from the mix: stems.use [mix]"
        )
        raise UserError(
            f"the separation model {name} cannot be fetched: {error}", where="stems.model", fix=fix
        ) from error
    return loaded if isinstance(loaded, BagOfModels) else BagOfModels([loaded])


def _yaml(place: Path) -> Path:
    return place.with_name(f"{place.name}.yaml")


def _local_bag(place: Path) -> Any:
    """The bag in a folder, which must hold one, or the one named `place.name` in its parent."""
    import yaml
    from demucs.apply import BagOfModels

    bags = sorted(place.glob("*.yaml")) if place.is_dir() else [_yaml(place)]
    if len(bags) != 1:
        found = ", ".join(bag.stem for bag in bags) or "none"
        fix = (
            f"name one of them: {bags[0].with_suffix('')}" if bags else "a model folder holds name.yaml and its weights"
        )
        raise UserError(f"a folder with one Demucs model is wanted; it holds: {found}", where=str(place), fix=fix)
    try:
        bag = yaml.safe_load(bags[0].read_text("utf-8"))
        models = [_local_model(bags[0].parent, str(signature)) for signature in bag["models"]]
        loaded = BagOfModels(models, bag.get("weights"), bag.get("segment"))
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {error}"
        fix = "a bag lists its models: models: ['<file name without ending>']"
        raise UserError(f"not a usable Demucs bag ({reason})", where=str(bags[0]), fix=fix) from error
    if not all(map(any, zip(*loaded.weights, strict=True))):
        raise UserError("a stem of this bag is weighted zero in every model", where=str(bags[0]))
    if len({(type(m), getattr(m, "segment", None)) for m in models}) > 1:
        raise UserError("a bag whose models work on windows of different length is not supported", where=str(bags[0]))
    return loaded


def _local_model(folder: Path, signature: str) -> Any:
    from demucs.hf import load_safetensors_model
    from demucs.repo import ModelLoadingError, check_checksum
    from demucs.states import load_model

    files = [p for p in (folder / f"{signature}.safetensors", folder / f"{signature}.th") if p.is_file()]
    files += sorted(folder.glob(f"{signature}-*.th"))
    if not files:
        fix = f"put {signature}.safetensors or {signature}.th beside the bag"
        raise UserError(f"the weights {signature} are missing", where=str(folder), fix=fix)
    path = files[0]
    try:
        if path.suffix == ".safetensors":
            _check_class(path)
            return load_safetensors_model(path)
        if path.stem != signature:
            check_checksum(path, path.stem.rpartition("-")[2])
        return load_model(_read_pickle(path))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ModelLoadingError, _safetensors_error()) as error:
        fix = "use the weights as demucs publishes them"
        raise UserError(f"not usable as Demucs weights: {error}", where=str(path), fix=fix) from error


def _read_pickle(path: Path) -> dict[str, Any]:
    """A `.th` package read with nothing but tensors and the models' own classes allowed.

    Raises:
        ValueError: it holds anything else.
    """
    import pickle

    with torch.serialization.safe_globals([*_classes().values(), Fraction]):
        try:
            package = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError("it holds more than weights, and reading it could run code") from error
        except (LookupError, EOFError) as error:
            raise ValueError("it is damaged, or no file of weights") from error
    if not isinstance(package, dict) or package.get("klass") not in _classes().values():
        raise ValueError("it names no Demucs model class")
    return package


def _check_class(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    kwargs = json.loads(metadata.get("kwargs", "null"))
    if metadata.get("klass") not in _CLASSES or "structure" in metadata or not isinstance(kwargs, dict):
        raise ValueError("its metadata names no Demucs model")


def _classes() -> dict[str, Any]:
    from demucs.demucs import Demucs
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs

    return {str(name): klass for name, klass in zip(_CLASSES, (HTDemucs, HDemucs, Demucs), strict=True)}


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError
