"""Audio language models: a caption per clip, in sentences, to a prompt that the person may change.

Through transformers' own classes, no code of a model's: Qwen2-Audio (Chu et al. 2024, arXiv:2407.10759), Qwen2.5-Omni
(Xu et al. 2025, arXiv:2503.20215; its "thinker" alone, which is what writes), Music Flamingo (Ghosh et al. 2025,
arXiv:2511.10289). Answers are decoded greedily, so that a clip has one answer. A batch is padded on its left; rounding
differs between batch sizes, so two equally likely words may change places with another size.

What it does not know: whether an answer is true. These models name players, titles and lyrics that they make up;
`word_filter` takes out what it recognises, and a person should read the captions (`woodshed captions`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from configs.errors import UserError
from configs.listeners import ListenerSettings
from data_prep.listeners.listener import Answer, Known
from data_prep.listeners.model_files import WHERE, model_folder, weights_identity


@dataclass(frozen=True)
class Kind:
    """One family of models: its default weights, transformers' class for them, and the configurations that belong."""

    model: str
    class_name: str
    types: tuple[str, ...]
    max_sec: float
    """The longest clip it hears; of a longer one, its beginning."""


KINDS = {
    "qwen2-audio": Kind("Qwen/Qwen2-Audio-7B-Instruct", "Qwen2AudioForConditionalGeneration", ("qwen2_audio",), 30.0),
    "qwen2.5-omni": Kind(
        "Qwen/Qwen2.5-Omni-7B",
        "Qwen2_5OmniThinkerForConditionalGeneration",
        ("qwen2_5_omni", "qwen2_5_omni_thinker"),
        300.0,
    ),
    "music-flamingo": Kind(
        "nvidia/music-flamingo-2601-hf", "MusicFlamingoForConditionalGeneration", ("musicflamingo",), 1200.0
    ),
}


def fingerprint(name: str, model: str, settings: ListenerSettings) -> str:
    """What the answers depend on, without loading the weights.

    Raises:
        UserError: as `model_folder`.
    """
    asked = f"{settings.prompt}\n{settings.max_new_tokens} {settings.bits}"
    identity = weights_identity(model_folder(model or KINDS[name].model, name, KINDS[name].types))
    return f"{name} 1 {identity} {hashlib.sha256(asked.encode()).hexdigest()[:12]}"


class AudioLanguageModel:
    """A listener that writes."""

    def __init__(self, name: str, model: str, settings: ListenerSettings, device: str = "cpu") -> None:
        import transformers

        kind = KINDS[name]
        folder = model_folder(model or kind.model, name, kind.types)
        self.name = name
        self.batch_size = settings.batch_size
        self._settings, self._kind = settings, kind
        model_class: Any = getattr(transformers, kind.class_name)
        self.model: Any = model_class.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, **_loading(settings, device)
        )
        self.model.eval().requires_grad_(False)
        if settings.bits is None:
            self.model.to(device)
        self.processor: Any = _processor(folder, name)
        self.sample_rate_hz = int(self.processor.feature_extractor.sampling_rate)
        self.fingerprint = fingerprint(name, model, settings)

    @torch.inference_mode()
    def listen(self, audio: Sequence[Float[np.ndarray, " _"]], known: Sequence[Known]) -> list[Answer]:
        """What it writes of each clip, as it writes it.

        Raises:
            UserError: the GPU has too little memory.
        """
        longest = round(self._kind.max_sec * self.sample_rate_hz)
        prompt = self._prompt()
        inputs = self.processor(
            text=[prompt] * len(audio),
            audio=[np.ascontiguousarray(clip[:longest], np.float32) for clip in audio],
            sampling_rate=self.sample_rate_hz,
            return_tensors="pt",
            text_kwargs={"padding": True, "padding_side": "left"},  # the audio has a padding of its own
        )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)  # dtype: of floating values only
        try:
            tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=self._settings.max_new_tokens)
        except torch.cuda.OutOfMemoryError as error:
            fix = "Set captions.listeners.batch_size 1, or captions.listeners.bits 4; what was heard so far is kept."
            raise UserError(f"The GPU has too little memory for {self.name}.", where=WHERE, fix=fix) from error
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [Answer(text=text.strip()) for text in texts]

    def _prompt(self) -> str:
        """The question in the model's own chat format, with the place of the audio in it."""
        content = [{"type": "audio"}, {"type": "text", "text": self._settings.prompt}]
        conversation = [{"role": "user", "content": content}]
        try:
            return self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        except ValueError as error:
            fix = "Copy chat_template.jinja (or chat_template.json) beside its config.json."
            raise UserError(f"The model for {self.name} has no chat template.", where=WHERE, fix=fix) from error


def _processor(folder: Path, name: str) -> Any:
    if name == "qwen2.5-omni":
        from data_prep.listeners.omni_processor import OmniProcessor

        return OmniProcessor(folder)
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, trust_remote_code=False)


def _loading(settings: ListenerSettings, device: str) -> dict[str, Any]:
    """How the weights are held: in 4 bit where asked, else in bf16 on a GPU and float32 on a CPU."""
    if settings.bits is None:
        return {"dtype": torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32}
    from transformers import BitsAndBytesConfig

    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": four_bit, "device_map": {"": device}, "dtype": torch.bfloat16}
