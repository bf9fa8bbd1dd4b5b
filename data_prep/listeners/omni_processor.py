"""What Qwen2.5-Omni reads of audio and text, without the parts of its processor that look at pictures.

transformers' own processor for it cannot be made without torchvision, which nothing here needs. The parts for sound
are its own: Whisper's log-mel picture, and one audio token for each place that the encoder will put out. Clips are
padded to the longest of the batch instead of to the model's 300 s: the encoder reads nothing of the padding.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

AUDIO = "<|AUDIO|>"
_TEMPLATE = "chat_template.json"


class OmniProcessor:
    """Used like a processor of transformers, as far as a listener needs one."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, WhisperFeatureExtractor

        self.feature_extractor: Any = WhisperFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.audio_token: str = self.tokenizer.init_kwargs.get("audio_token", AUDIO)
        template = folder / _TEMPLATE
        if self.tokenizer.chat_template is None and template.is_file():
            self.tokenizer.chat_template = json.loads(template.read_text("utf-8"))["chat_template"]

    def apply_chat_template(self, conversation: list[dict[str, Any]], **how: Any) -> str:
        """The conversation as one text, with one audio token in it.

        Raises:
            ValueError: the model's folder has no template.
        """
        return self.tokenizer.apply_chat_template(conversation, **how)

    def __call__(
        self,
        text: Sequence[str],
        audio: Sequence[Float[np.ndarray, " _"]],
        sampling_rate: int,
        return_tensors: str,
        text_kwargs: dict[str, Any],
    ) -> Any:
        """Token ids and log-mel pictures with their masks, a row per text and the clip that it asks about."""
        from transformers import BatchFeature

        heard = self.feature_extractor(
            list(audio),
            sampling_rate=sampling_rate,
            padding="longest",
            truncation=False,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        frames = heard["attention_mask"].sum(-1).tolist()
        said = [
            one.replace(self.audio_token, self.audio_token * encoded_length(n))
            for one, n in zip(text, frames, strict=True)
        ]
        words = self.tokenizer(said, return_tensors=return_tensors, **text_kwargs)
        sound = {"input_features": heard["input_features"], "feature_attention_mask": heard["attention_mask"]}
        return BatchFeature({**words, **sound})

    def batch_decode(self, tokens: Any, **how: Any) -> list[str]:
        """Texts of rows of token ids."""
        return self.tokenizer.batch_decode(tokens, **how)


def encoded_length(n_frames: int) -> int:
    """Places that the audio encoder puts out for so many frames of its picture: two strides of 2."""
    return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1
