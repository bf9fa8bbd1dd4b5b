"""How well a part fits what it should follow: beats, harmony, melody. Each measure on true scores of its own."""

import numpy as np
import torch
from jaxtyping import Float

from data_prep.chroma import agreement, chroma
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
    """Whether a part's chords are those of the true accompaniment, and whether it is in the piece's key.

    `chords`: mean cosine of what stands out of both chromas in each frame, weighted by the truth's loudness; -1 to 1,
    about 0 for music in other chords.
    """
    ours, theirs = (pitch_classes(one) for one in (part, truth))
    n = min(ours.shape[1], theirs.shape[1])
    weight = np.linalg.norm(theirs[:, :n], axis=0)
    cosine = ((ours[:, :n] * theirs[:, :n]).sum(0)) / np.maximum(np.linalg.norm(ours[:, :n], axis=0) * weight, 1e-9)
    fifths = fifths_off(ours.sum(1), piece)
    return {
        "chords": float((cosine * weight).sum() / max(weight.sum(), 1e-9)),
        "on_key": float(fifths == 0),
        "or_a_fifth_off": float(fifths <= 1),
    }


def pitch_classes(audio: Audio) -> Float[np.ndarray, "12 n"]:
    """What is pitched in it (librosa's HPSS, so that drums do not count), per pitch class, less each frame's mean."""
    import librosa

    pitched = librosa.effects.harmonic(audio, margin=2.0)
    if np.abs(pitched).max() < 1e-4:
        return np.zeros((12, 1 + len(audio) // 512))
    chroma = librosa.feature.chroma_cqt(
        y=pitched, sr=SHAPE.sample_rate_hz, norm=None, fmin=librosa.note_to_hz("C2"), n_octaves=5
    )
    return chroma - chroma.mean(0)


def fifths_off(pitch_classes: Float[np.ndarray, "12"], piece: Piece) -> int:
    """How far, in fifths, the diatonic scale that holds most of the music lies from the piece's own; 0 to 6.

    Neighbours share six of their seven notes, and few bars may leave out the one that tells them apart.
    """
    held = [pitch_classes[[(tonic + step) % 12 for step in SCALES["major"]]].sum() for tonic in range(12)]
    tonic = TONICS.index(piece.tonic)
    own = tonic if piece.mode == "major" else (tonic + 3) % 12
    steps = (int(np.argmax(held)) - own) * 7 % 12
    return min(steps, 12 - steps)


def melody(part: Audio, truth: Audio) -> dict[str, float]:
    """Share of the frames whose loudest pitch class is the melody's."""
    ours, theirs = (chroma(torch.from_numpy(one.copy()), SHAPE) for one in (part, truth))
    return {"agreement": agreement(ours, theirs)}
