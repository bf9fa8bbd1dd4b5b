"""How well a part fits what it should follow: beats, harmony, melody. Each measure on true scores of its own."""

import numpy as np
import torch
from jaxtyping import Float

from data_prep.chroma import agreement, chroma, energies
from data_prep.chroma_shape import ChromaShape
from starter.recipe.harmony import SCALES, TONICS
from starter.recipe.score import Piece

WITHIN_SEC = 0.07
SHAPE = ChromaShape(16_000, 8192, 320)
Audio = Float[np.ndarray, " N"]


def beats(part: Audio, rate_hz: int, piece: Piece) -> dict[str, float]:
    """F1 of the part's beats (librosa's tracker) within 70 ms, each matched once, and how far its tempo is off.

    `tempo_off` is relative; half and double count as off.
    """
    import librosa

    if np.abs(part).max() < 1e-3:
        return {"f1": 0.0, "tempo_off": 1.0}
    onsets = librosa.onset.onset_strength(y=part, sr=rate_hz, hop_length=160)
    _, found = librosa.beat.beat_track(onset_envelope=onsets, sr=rate_hz, hop_length=160, units="time", trim=False)
    truth = np.asarray([at for at in piece.beats_sec if at < len(part) / rate_hz])
    hits = matched(np.asarray(found), truth)
    f1 = 2 * hits / max(len(found) + len(truth), 1)
    bpm = 60 / np.median(np.diff(found)) if len(found) > 2 else 0.0
    return {"f1": f1, "tempo_off": abs(bpm / piece.tempo_bpm - 1)}


def matched(found: np.ndarray, truth: np.ndarray) -> int:
    """How many moments are met within 70 ms, each by one found moment of its own."""
    free, hits = list(found), 0
    for at in truth:
        near = min(free, key=lambda one: abs(one - at), default=None)
        if near is not None and abs(near - at) <= WITHIN_SEC:
            free.remove(near)
            hits += 1
    return hits


def harmony(part: Audio, truth: Audio, piece: Piece) -> dict[str, float]:
    """Mean cosine of chroma with the true accompaniment's, weighted by its loudness, and whether the part is on key."""
    ours, theirs = (energies(torch.from_numpy(one.copy()), SHAPE) for one in (part, truth))
    n = min(len(ours), len(theirs))
    cosine = torch.nn.functional.cosine_similarity(ours[:n].sqrt(), theirs[:n].sqrt(), dim=1)
    weight = theirs[:n].sum(1)
    agreed = float((cosine * weight).sum() / weight.sum().clamp(min=1e-12))
    return {"chroma": agreed, "on_key": float(on_key(ours.sqrt().sum(0).numpy(), piece))}


def on_key(pitch_classes: Float[np.ndarray, "12"], piece: Piece) -> bool:
    """Whether, of the twelve diatonic scales, the piece's own holds most of the music; by chance one time in twelve."""
    held = [pitch_classes[[(tonic + step) % 12 for step in SCALES["major"]]].sum() for tonic in range(12)]
    tonic = TONICS.index(piece.tonic)
    return int(np.argmax(held)) == (tonic if piece.mode == "major" else (tonic + 3) % 12)


def melody(part: Audio, truth: Audio) -> dict[str, float]:
    """Share of the frames whose loudest pitch class is the melody's."""
    ours, theirs = (chroma(torch.from_numpy(one.copy()), SHAPE) for one in (part, truth))
    return {"agreement": agreement(ours, theirs)}
