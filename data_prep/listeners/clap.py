"""CLAP: audio and text in one space. Words from a list that fit a clip, an embedding, and how well a text fits audio.

Wu et al., "Large-scale contrastive language-audio pretraining" (ICASSP 2023), through transformers' ClapModel; the
default weights are `laion/larger_clap_music` (48 kHz, windows of 10 s). A clip is heard in consecutive windows, and its
embedding is their mean, of length one: the processor's own way, one window at a random place, would give another answer
each time.

Words come from an editable list, by kind. Within a kind each word is compared as the sentence "The sound of …"; its
probability is a softmax over the kind, with the model's own temperature. So a word is never chosen because it is true,
only because it fits better than the others of its kind: lists should hold what may be heard.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError
from data_prep.listeners.listener import Answer, Known
from data_prep.listeners.model_files import model_folder, weights_identity

MODEL = "laion/larger_clap_music"
TYPES = ("clap",)
WINDOW_SEC = 10.0
CERTAIN = 0.5
WORDS: Mapping[str, tuple[str, ...]] = {
    "genre": (
        "rock", "pop", "jazz", "blues", "folk", "country", "classical music", "film music", "ambient", "techno",
        "house", "drum and bass", "hip hop", "funk", "soul", "reggae", "metal", "punk", "latin music", "bossa nova",
        "chiptune",
    ),
    "mood": ("calm", "happy", "sad", "dark", "energetic", "dreamy", "tense", "epic", "romantic", "playful"),
    "lead": (
        "piano", "acoustic guitar", "electric guitar", "distorted guitar", "violin", "string orchestra", "cello",
        "flute", "saxophone", "trumpet", "brass", "organ", "synthesizer", "harp", "vibraphone", "choir",
        "a woman singing", "a man singing", "rapping", "drums",
    ),
}  # fmt: skip
_PROMPT = "The sound of {}"
_MAX_WORDS = 1000
_MAX_FILE_BYTES = 64 * 1024


def fingerprint(model: str = "", words: Mapping[str, Sequence[str]] | None = None) -> str:
    """What the answers depend on, without loading the weights.

    Raises:
        UserError: as `model_folder`.
    """
    listed = repr(sorted((kind, tuple(of_kind)) for kind, of_kind in (words or WORDS).items()))
    identity = weights_identity(model_folder(model or MODEL, Clap.name, TYPES))
    return f"clap 1 {identity} {hashlib.sha256(listed.encode()).hexdigest()[:12]}"


class Clap:
    """A listener and an embedder."""

    name = "clap"
    batch_size = 8

    def __init__(self, model: str = "", words: Mapping[str, Sequence[str]] | None = None, device: str = "cpu") -> None:
        from transformers import ClapModel, ClapProcessor

        folder = model_folder(model or MODEL, self.name, TYPES)
        self.words = words or WORDS
        self.device = torch.device(device)
        self.model: Any = ClapModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
        self.model.eval().requires_grad_(False).to(self.device)
        self.processor: Any = ClapProcessor.from_pretrained(folder, trust_remote_code=False)
        self.sample_rate_hz = int(self.processor.feature_extractor.sampling_rate)
        self.width = int(self.model.config.projection_dim)
        self.fingerprint = fingerprint(model, self.words)

    @torch.inference_mode()
    def embed(self, audio: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "n D"]:
        """A row of length one per clip: the mean over its windows."""
        return np.stack([self._one(clip).cpu().numpy() for clip in audio])

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
        """A row of length one per text."""
        return self._texts(texts).cpu().numpy()

    def score(self, audio: Sequence[Float[np.ndarray, " _"]], texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """CLAP score: the cosine between each clip and its text, −1 to 1."""
        return (self.embed(audio) * self.embed_text(texts)).sum(axis=1)

    @torch.inference_mode()
    def listen(self, audio: Sequence[Float[np.ndarray, " _"]], known: Sequence[Known]) -> list[Answer]:
        """The words of each kind that are more likely than all others of that kind together."""
        scale = self.model.logit_scale_a.exp()
        found = []
        for clip in audio:
            point = self._one(clip)
            scores: dict[str, float] = {}
            for kind, points in self._listed.items():
                shares = (scale * points @ point).softmax(dim=0).tolist()
                scores |= dict(zip(self.words[kind], shares, strict=True))
            sure = sorted((word for word, score in scores.items() if score >= CERTAIN), key=lambda w: -scores[w])
            found.append(Answer(words=tuple(sure), scores=scores))
        return found

    @cached_property
    def _listed(self) -> dict[str, Float[Tensor, "W D"]]:
        return {kind: self._texts([_PROMPT.format(word) for word in words]) for kind, words in self.words.items()}

    def _texts(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        tokens = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return self.model.get_text_features(**tokens.to(self.device)).pooler_output

    def _one(self, clip: Float[np.ndarray, " N"]) -> Float[Tensor, " D"]:
        size = round(WINDOW_SEC * self.sample_rate_hz)
        count = max(1, -(-len(clip) // size))
        starts = np.linspace(0, max(0, len(clip) - size), count).round().astype(int).tolist()
        windows = [clip[start : start + size] for start in starts]
        inputs = self.processor.feature_extractor(
            windows,
            sampling_rate=self.sample_rate_hz,
            truncation="fusion" if self.model.config.audio_config.enable_fusion else "rand_trunc",
            padding="repeatpad",
            return_tensors="pt",
        )
        points = self.model.get_audio_features(**inputs.to(self.device)).pooler_output  # [windows, D]
        return torch.nn.functional.normalize(points.mean(dim=0), dim=0)


def read_words(path: Path) -> dict[str, tuple[str, ...]]:
    """An editable list: a word or short phrase per line; `# kind` begins a kind, in which they compete.

    Raises:
        UserError: it cannot be read, is no text, too large, or holds no two words of a kind.
    """
    fix = "Write one word or short phrase per line, and `# genre` or the like above those that compete."
    try:
        data = path.read_bytes()[: _MAX_FILE_BYTES + 1]
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of words cannot be read: {error}", where=str(path), fix=fix) from error
    kinds: dict[str, dict[str, None]] = {}
    kind = "words"
    for line in filter(None, map(str.strip, lines)):
        if line.startswith("#"):
            kind = line.strip("# ") or kind
        else:
            kinds.setdefault(kind, {})[line] = None
    if len(data) > _MAX_FILE_BYTES or sum(map(len, kinds.values())) > _MAX_WORDS:
        raise UserError("The list of words is too long.", where=str(path), fix=f"Keep at most {_MAX_WORDS} words.")
    if not kinds or min(map(len, kinds.values())) < 2:
        raise UserError("A list of words needs at least two of a kind to choose from.", where=str(path), fix=fix)
    return {name: tuple(words) for name, words in kinds.items()}
