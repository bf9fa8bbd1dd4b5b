"""MusicCoCa, the official style model of Magenta RealTime 2: words or sound to style tokens. No torch here.

It comes as tflite files beside the checkpoint and runs through ai-edge-litert, an optional package. How the files are
called follows magenta-rt 2.0.3, `musiccoca.py`; sound is resampled with soxr where the official code uses resampy.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from configs.errors import UserError
from data_prep.style_tokens import CARD, N_TOKENS, WIDTH, Embeddings, Tokens, stacked, stretches

MAX_TEXT_TOKENS = 127
START_ID = 1
PARTS = {
    "vocabulary": "spm.model",
    "text": "text_encoder.tflite",
    "sound": "audio_preprocessor.tflite",
    "music": "music_encoder.tflite",
    "quantizer": "pretrained_vector_quantizer.tflite",
}
"""The official files; `mapper.tflite` may stand beside them."""
MAPPER = "mapper.tflite"
SAMPLE_BYTES = 1 << 20


class MusicCoCa:
    """The official style model in a folder. Each part is opened when it is first needed."""

    def __init__(self, folder: Path, interpreter: Callable[[Path], Any] | None = None) -> None:
        self.folder = folder
        self._open = cache(interpreter or _interpreter)

    @classmethod
    def load(cls, folder: Path) -> "MusicCoCa":
        """The style model in `folder`, once files and package are known to be there.

        Raises:
            UserError: a file is missing, or ai-edge-litert is not installed.
        """
        missing = [file for file in PARTS.values() if not (folder / file).is_file()]
        if missing:
            raise UserError(
                f"The style model is incomplete: {', '.join(missing)} missing.",
                where=str(folder),
                fix="Fetch resources/musiccoca from the hub's folder (`mrt models init` of the official package does), "
                "or give style tokens yourself.",
            )
        _require_litert()
        return cls(folder)

    @property
    def fingerprint(self) -> str:
        """A hash over size, beginning and end of every file."""
        digest = hashlib.sha256()
        for name in PARTS.values():
            with (self.folder / name).open("rb") as file:
                digest.update(file.read(SAMPLE_BYTES))
                size = file.seek(0, 2)
                file.seek(max(0, size - SAMPLE_BYTES))
                digest.update(file.read() + str(size).encode())
        return digest.hexdigest()[:16]

    def is_too_long(self, text: str) -> bool:
        """Whether only a text's beginning is heard: the first 127 of its tokens."""
        return len(self._ids(text)) > MAX_TEXT_TOKENS

    def embed_texts(self, texts: Sequence[str], *, mapped: bool = False, seed: int = 0) -> Embeddings:
        """Each text's place; with `mapped`, moved to where music that fits it may be (some noise decides, by `seed`).

        Raises:
            UserError: `mapped` without mapper.tflite.
        """
        found = [self._embed_text(text) for text in texts]
        if mapped:
            found = [self._mapped(embedding, seed) for embedding in found]
        return stacked(found)

    def embed_sound(self, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Embeddings:
        """The place of every 10 s; the last stretch ends with the recording and may overlap the one before it.

        A recording shorter than 10 s is heard with silence behind it.
        """
        return stacked([self._embed_stretch(stretch) for stretch in stretches(audio, sample_rate_hz)])

    def tokens(self, embeddings: Embeddings) -> Tokens:
        """The quantiser's code at each of 12 levels.

        Raises:
            UserError: the quantiser gives what is no token.
        """
        opened = self._open(self.folder / PARTS["quantizer"])
        rows = [_run(opened, [embedding])[0].reshape(-1)[:N_TOKENS] for embedding in embeddings]
        found = np.array(rows, np.int64).reshape(-1, N_TOKENS)
        if found.size and not (found.min() >= 0 and found.max() < CARD):
            raise UserError("The style model's quantiser gives no tokens.", where=str(self.folder / PARTS["quantizer"]))
        return found.astype(np.int16)

    def _ids(self, text: str) -> list[int]:
        return self._vocabulary.EncodeAsIds(text.lower())

    def _embed_text(self, text: str) -> Float32[np.ndarray, " 768"]:
        ids = [START_ID, *self._ids(text)[:MAX_TEXT_TOKENS]]
        n_padding = MAX_TEXT_TOKENS + 1 - len(ids)
        padded = np.array(ids + [0] * n_padding, np.int32)
        is_padding = np.array([0.0] * len(ids) + [1.0] * n_padding, np.float32)
        return _run(self._open(self.folder / PARTS["text"]), [padded, is_padding])[0].reshape(-1).astype(np.float32)

    def _mapped(self, embedding: Float32[np.ndarray, " 768"], seed: int) -> Float32[np.ndarray, " 768"]:
        path = self.folder / MAPPER
        if not path.is_file():
            raise UserError(
                f"There is no {MAPPER} to map texts with.", where=str(self.folder), fix="Leave mapping off."
            )
        noise = np.random.RandomState(seed).randn(WIDTH).astype(np.float32)
        moved = _run(self._open(path), [embedding, noise])[0].reshape(-1).astype(np.float32)
        return moved / np.linalg.norm(moved)

    def _embed_stretch(self, stretch: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " 768"]:
        features = _run(self._open(self.folder / PARTS["sound"]), [stretch])[0]
        return _run(self._open(self.folder / PARTS["music"]), [features])[0].reshape(-1).astype(np.float32)

    @cached_property
    def _vocabulary(self) -> Any:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=str(self.folder / PARTS["vocabulary"]))


def _run(interpreter: Any, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One pass; each value goes to the input of its kind (whole numbers or not), in order."""
    inputs = interpreter.get_input_details()
    left = list(inputs)
    for value in values:
        is_int = np.issubdtype(value.dtype, np.integer)
        detail = next(detail for detail in left if np.issubdtype(detail["dtype"], np.integer) == is_int)
        left.remove(detail)
        interpreter.set_tensor(detail["index"], value.reshape(detail["shape"]))
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]


def _interpreter(path: Path) -> Any:
    opened = _require_litert()(model_path=str(path))
    opened.allocate_tensors()
    return opened


def _require_litert() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "The style model needs the package ai-edge-litert.",
            where=str(error),
            fix="Install it (`pip install ai-edge-litert`), or give style tokens yourself.",
        ) from error
    return Interpreter
