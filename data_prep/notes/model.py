"""basic-pitch's published model: how likely each pitch sounds, and begins, every 11.6 ms. No torch here.

A small network for any instrument (Bittner et al. 2022, "A Lightweight Instrument-Agnostic Model for Polyphonic Note
Transcription and Multipitch Estimation", ICASSP, arXiv:2203.09893), Apache-2.0, 17,000 weights. Its package carries it
as `nmp.onnx`; the package itself is not imported, because its TensorFlow does not go with what is used here. What it
hears in voices and drums means little.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from configs.errors import UserError

RATE_HZ = 22_050
HOP_SAMPLES = 256
WINDOW_SAMPLES = 43_844
"""What the model hears at once: 172 frames, the last of which looks behind the end."""
EDGE_FRAMES, KEPT_FRAMES = 15, 142
"""Of each window, frames that the edge may have spoilt, and those behind them that count."""
LOWEST_PITCH, N_PITCHES = 21, 88
"""MIDI numbers of a piano's keys."""
ONSETS, NOTES = "StatefulPartitionedCall:2", "StatefulPartitionedCall:1"
"""Names of the outputs in the published file."""
INSIDE_PACKAGE = ("saved_models", "icassp_2022", "nmp.onnx")
MAX_BYTES = 64 * 2**20
INSTALL = "pip install onnxruntime && pip install --no-deps basic-pitch"


class Likelihoods(NamedTuple):
    """How likely each of 88 pitches begins, and sounds, in each frame of 11.6 ms."""

    onsets: Float32[np.ndarray, "T 88"]
    notes: Float32[np.ndarray, "T 88"]


def model_file(given: Path | None) -> Path:
    """The model: the file that is given, or that of the installed package basic-pitch, which is not imported.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        path = given.expanduser()
        if not path.is_file():
            raise UserError("There is no such model for notes.", where=str(path), fix="Give basic-pitch's nmp.onnx.")
        return path
    found = importlib.util.find_spec("basic_pitch")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder).joinpath(*INSIDE_PACKAGE)
        if path.is_file():
            return path
    raise UserError(
        "Notes are transcribed by basic-pitch's model, which is not installed.",
        where="--notes",
        fix=f"`{INSTALL}`, or give its nmp.onnx with --notes_model FILE.",
    )


@lru_cache(maxsize=2)
def file_fingerprint(path: Path) -> str:
    """Of the model's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class NotesModel:
    """The model, ready to listen; one thread."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    @classmethod
    def load(cls, path: Path) -> "NotesModel":
        """Open the file. It is read as bytes, so that it cannot name other files.

        Raises:
            UserError: onnxruntime is not installed, or the file is not this model.
        """
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("Transcribing notes needs onnxruntime.", where=str(error), fix=f"`{INSTALL}`.") from error
        wrong = UserError("This is not basic-pitch's model.", where=str(path), fix="It is nmp.onnx in its package.")
        if path.stat().st_size > MAX_BYTES:
            raise wrong
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no class of its own for files that it cannot read
            raise wrong from error
        inputs, outputs = session.get_inputs(), {one.name: one.shape[-1] for one in session.get_outputs()}
        if [one.shape[1:] for one in inputs] != [[WINDOW_SAMPLES, 1]]:
            raise wrong
        if [outputs.get(name) for name in (ONSETS, NOTES)] != [N_PITCHES, N_PITCHES]:
            raise wrong
        return cls(session)

    def listen(self, audio: Float[np.ndarray, " N"]) -> Likelihoods:
        """Mono audio at 22,050 Hz; frame t is centred at sample 256 t."""
        n_frames = -(-len(audio) // HOP_SAMPLES)
        heard = [self._hear(window) for window in _windows(audio, n_frames)]
        onsets, notes = (
            np.concatenate([one[part] for one in heard])[:n_frames] if heard else np.zeros((0, N_PITCHES), np.float32)
            for part in (0, 1)
        )
        return Likelihoods(onsets, notes)

    def _hear(self, window: Float32[np.ndarray, " W"]) -> tuple[np.ndarray, np.ndarray]:
        """Onsets and notes of the frames that count. Outputs are told apart by their names, as the file has them."""
        outputs = self._session.run([ONSETS, NOTES], {self._input: window[None, :, None]})
        onsets, notes = (output[0, EDGE_FRAMES : EDGE_FRAMES + KEPT_FRAMES] for output in outputs)
        return onsets, notes


def _windows(audio: Float[np.ndarray, " N"], n_frames: int) -> Iterator[Float32[np.ndarray, " W"]]:
    """Windows whose counting frames follow one another without a gap; silence before the beginning and the end."""
    before = EDGE_FRAMES * HOP_SAMPLES
    for first in range(0, n_frames, KEPT_FRAMES):
        start = first * HOP_SAMPLES - before
        part = audio[max(start, 0) : max(start + WINDOW_SAMPLES, 0)].astype(np.float32)
        left = max(0, -start)
        yield np.pad(part, (left, WINDOW_SAMPLES - left - len(part)))
