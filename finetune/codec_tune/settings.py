"""How a decoder is tuned, in plain numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TuneSettings:
    """How a decoder is tuned.

    Attributes:
        steps: optimizer steps in all.
        lr: learning rate after a warm-up of 20 steps; it falls along a half cosine to a twentieth.
        batch_size: crops per step.
        crop_sec: length of a crop, without its context.
        every_steps: steps between two measurements of the held-out songs; the best one is kept.
        other_share: share of crops from other music, if there is any.
        keep_old: crops of other music have what the old decoder made of them as their target; False: the recording.
        average: decay of the running mean of the weights, which is what is measured and kept; 0: the last weights.
        rank: learn low-rank changes of this rank, for a small file; 0: whole weights.
        discriminators: train against STFT discriminators too.
        seed: of the crops.
    """

    steps: int = 600
    lr: float = 3e-4
    batch_size: int = 6
    crop_sec: float = 0.6
    every_steps: int = 100
    other_share: float = 0.25
    keep_old: bool = False
    average: float = 0.99
    rank: int = 0
    discriminators: bool = False
    seed: int = 0
