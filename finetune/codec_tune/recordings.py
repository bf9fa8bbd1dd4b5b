"""What a decoder learns from: songs as audio and as the codec's own tokens, and crops that depend on the step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec.port import Codec
from data_prep.decode import AudioError, reason, stream
from data_prep.progress import stage
from data_prep.scan import scan

HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Recording:
    """A song at the codec's rate as 16-bit samples, cut to whole frames, and its codes."""

    name: str
    audio: Int[np.ndarray, "C N"]
    codes: Int[np.ndarray, "K T"]


@dataclass(frozen=True)
class Crop:
    """A batch: codes with context on either side, the audio of the frames between, and which are of other music."""

    codes: Int[Tensor, "B K T"]
    audio: Float[Tensor, "B C N"]
    is_other: Bool[Tensor, " B"]


def read_recordings(folder: Path, codec: Codec, *, shortest_sec: float) -> tuple[list[Recording], list[str]]:
    """Every song of a folder that is long enough, and what was left out with the reason."""
    songs, left_out, found = scan(folder).songs, [], []
    with stage("recordings", len(songs), unit="songs") as progress:
        for song in songs:
            try:
                blocks = list(stream(song.path, sample_rate_hz=codec.sample_rate_hz, channels=codec.channels))
            except (AudioError, OSError) as error:
                left_out.append(f"{song.relative}: {reason(error)}")
                continue
            audio = np.concatenate(blocks, axis=1)
            n_frames = audio.shape[1] // codec.hop_samples
            if n_frames < codec.spec.frames_in(shortest_sec):
                left_out.append(f"{song.relative}: shorter than {shortest_sec:g} s")
                continue
            audio = audio[:, : n_frames * codec.hop_samples]
            (codes,) = codec.encode([torch.from_numpy(audio)])
            found.append(Recording(song.relative, (audio.clip(-1, 1) * 32767).astype(np.int16), codes))
            progress.advance()
    return found, left_out


T = TypeVar("T")


def hold_out(recordings: Sequence[T], left_out: Sequence[str] = ()) -> tuple[list[T], list[T]]:
    """Songs to learn from, and a fifth of them, evenly spread by name, that are only measured.

    `left_out` says which could not be used, for the message.

    Raises:
        UserError: there are fewer than two.
    """
    if len(recordings) < 2:
        raise UserError(
            f"At least two songs are needed, {len(recordings)} can be used: one is held out and only measured.",
            where="; ".join(left_out[:3]),
            fix="Put more songs into the folder, or cut a long one into several files.",
        )
    count = max(1, round(HELD_OUT_SHARE * len(recordings)))
    held = {(2 * number + 1) * len(recordings) // (2 * count) for number in range(count)}
    kept = [recording for number, recording in enumerate(recordings) if number not in held]
    return kept, [recordings[number] for number in sorted(held)]


class Crops:
    """Random crops of recordings: the batch of a step is a function of the seed and the step."""

    def __init__(
        self, own: Sequence[Recording], others: Sequence[Recording], *, other_share: float, seed: int, hop: int
    ) -> None:
        self.own, self.others, self.other_share = own, others, other_share
        self.seed, self.hop = seed, hop

    def batch(self, step: int, size: int, n_frames: int, context_frames: int) -> Crop:
        """Crops of `n_frames`, drawn by length from one's own songs and, for a share, from other music."""
        generator = np.random.default_rng((self.seed, step))
        whole = n_frames + 2 * context_frames
        codes, audio, is_other = [], [], []
        for _ in range(size):
            other = bool(self.others) and generator.random() < self.other_share
            pool = [one for one in (self.others if other else self.own) if one.codes.shape[1] >= whole]
            room = np.array([one.codes.shape[1] - whole + 1 for one in pool], float)
            chosen = pool[generator.choice(len(pool), p=room / room.sum())]
            start = int(generator.integers(chosen.codes.shape[1] - whole + 1))
            codes.append(chosen.codes[:, start : start + whole])
            inner = slice((start + context_frames) * self.hop, (start + context_frames + n_frames) * self.hop)
            audio.append(chosen.audio[:, inner])
            is_other.append(other)
        return Crop(
            torch.from_numpy(np.stack(codes).astype(np.int64)),
            torch.from_numpy(np.stack(audio).astype(np.float32) / 32767),
            torch.tensor(is_other),
        )
