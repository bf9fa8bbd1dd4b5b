"""Any text encoder of transformers, from a folder or the hub: what an LM is moved to with `prep --text_encoder`.

T5 and its kin give the states of their encoder, CLAP and CLIP those of their text side, and any other model its last
hidden states. Only safetensors are read, and no code that comes with a model ever runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError
from data_prep import weight_file
from data_prep.checkpoint_files import checkpoint_files
from data_prep.fingerprint import fingerprint
from data_prep.move import TextChoice

FIX = (
    "Give a hub id (google/flan-t5-base, laion/larger_clap_music), or a folder that `save_pretrained` of the model and "
    "of its tokenizer wrote."
)
TWO_SIDED = {"clap": "ClapTextModelWithProjection", "clip": "CLIPTextModel"}
"""Models of text and something else: the class that is their text side."""
TWO_SIDED |= {"clap_text_model": "ClapTextModelWithProjection", "clip_text_model": "CLIPTextModel"}
LONGEST = 512
"""Tokens that are read of a text where a model knows no limit of its own."""
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclass
class TransformersTextEncoder:
    """A frozen model of texts in float32 on one device; see `data_prep.text_encoders.port.TextEncoder`."""

    model: Any
    tokenizer: Any
    fingerprint: str
    width: int
    max_tokens: int

    def is_too_long(self, caption: str) -> bool:
        """Whether only the caption's beginning can be encoded."""
        return len(self.tokenizer(caption, verbose=False).input_ids) > self.max_tokens

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> list[Float[Tensor, "_ D"]]:
        """The states [L, D] of each caption's tokens, on the CPU: one text at a time, none depends on another."""
        device = next(self.model.parameters()).device
        found = []
        for caption in captions:
            ids = self.tokenizer(caption, truncation=True, max_length=self.max_tokens).input_ids
            states = self.model(input_ids=torch.tensor([ids], device=device)).last_hidden_state
            found.append(states[0].to("cpu", torch.float32).clone())  # [L, D]
        return found


def choose(id: str) -> TextChoice:
    """What an id means, without loading the model: its fingerprint and the width of its states.

    Raises:
        UserError: not found, or no model of texts that can be used.
    """
    folder = folder_of(id)
    config = _config(folder)
    if config.get("model_type") in ("musicgen", "musicgen_melody"):
        raise _unusable(folder, "it is a whole MusicGen, which is a --base; a text encoder has a folder of its own")
    return TextChoice(id, fingerprint(_Stored(folder)), _width(folder, config))


def load(choice: TextChoice, device: str | torch.device = "cpu") -> TransformersTextEncoder:
    """Load the encoder of this choice.

    Raises:
        UserError: not found, another than is meant, or a model that is not of texts.
    """
    import transformers
    from transformers import AutoTokenizer

    folder = folder_of(choice.id)
    config, found = _config(folder), fingerprint(_Stored(folder))
    if found != choice.fingerprint:
        raise UserError(
            f"This is not the text encoder that was trained with: its fingerprint is {found}, not "
            f"{choice.fingerprint}.",
            where=str(folder),
            fix="Give the folder or hub id of that one as --text_encoder.",
        )
    kind: Any = getattr(transformers, TWO_SIDED.get(config.get("model_type", ""), "AutoModelForTextEncoding"))
    given: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = _model(kind, folder, given)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _unusable(folder, f"it does not load ({str(error).splitlines()[0][:200]})") from error
    model = getattr(model, "text_model", model)
    limits = (tokenizer.model_max_length, _positions(model.config))
    most = min(limit for limit in limits if limit)
    return TransformersTextEncoder(
        model.to(device).eval().requires_grad_(False), tokenizer, found, choice.width, min(most, LONGEST)
    )


def folder_of(id: str) -> Path:
    """The model's files here, fetched where an id on the hub is meant.

    Raises:
        UserError: not found, out of reach, or pickled weights only.
    """
    folder = Path(id).expanduser()
    if not folder.is_dir():
        folder = _from_hub(id)
    weights = checkpoint_files(folder)
    if not all(path.exists() for path in weights):
        pickled = any(folder.glob("*.bin"))
        raise _unusable(folder, "it holds pickled weights only" if pickled else "its safetensors are missing")
    problem = next(filter(None, map(weight_file.problem, weights)), None)
    if problem is not None:
        raise _unusable(folder, " ".join(problem))
    return folder


def _model(kind: Any, folder: Path, given: dict[str, Any]) -> Any:
    """The text side; where transformers lists no text encoder of its kind, the whole model without its decoder."""
    from transformers import AutoModel

    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **given)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        whole = AutoModel.from_pretrained(folder, trust_remote_code=False, **given)
        return whole.get_encoder() if whole.config.is_encoder_decoder else whole


def _positions(config: Any) -> int | None:
    """Tokens that the model has positions for; RoBERTa's begin behind its padding id."""
    most = getattr(config, "n_positions", None) or getattr(config, "max_position_embeddings", None)
    if most and config.model_type in ("roberta", "xlm-roberta", "camembert", "clap_text_model"):
        most -= config.pad_token_id + 1
    return most


def _width(folder: Path, config: Mapping[str, Any]) -> int:
    inner = config.get("text_config") or config
    width = inner.get("d_model") or inner.get("hidden_size")
    if not isinstance(width, int):
        raise _unusable(folder, "its config.json does not say how wide its states are (d_model or hidden_size)")
    return width


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(folder, f"its config.json cannot be read ({error})") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise _unusable(folder, "its config.json names no model_type")
    return config


class _Stored(Mapping[str, Tensor]):
    """The tensors of a folder by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files = [safe_open(path, framework="pt") for path in checkpoint_files(folder)]
        self._place = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        return self._place[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


def _from_hub(id: str) -> Path:
    import httpx
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(id, allow_patterns=list(_PATTERNS)))
    except (errors.HFValidationError, errors.RepositoryNotFoundError) as error:
        raise UserError(f"There is no text encoder `{id}`.", where="text_encoder", fix=FIX) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError) as error:
        raise UserError(
            f"`{id}` is not on this machine and the hub cannot be reached.", where="text_encoder", fix=FIX
        ) from error
    except (errors.GatedRepoError, OSError) as error:
        raise UserError(f"`{id}` could not be fetched ({error}).", where="text_encoder", fix=FIX) from error


def _unusable(folder: Path, why: str) -> UserError:
    return UserError(f"Cannot use this as a text encoder: {why}.", where=str(folder), fix=FIX)
