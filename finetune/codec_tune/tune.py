"""`woodshed codec tune`: the decoder of a codec learns from recordings; encoder, quantiser and so every token stay.

The losses are those that made the starter's codec: log-mel spectrograms at four resolutions, onset envelopes, the
waveform, and, if asked for, STFT discriminators with feature matching. Crops are decoded with context that is cut off
again, so that the decoder learns the middle of music and not its own padding. With other music at hand, the decoder is
drawn back towards the old one until that music loses no more than it may.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.codec.low_rank_decoder import is_low_rank, part_way, whole_of
from data_prep.codec.transformers_codec import TransformersCodec
from data_prep.codec.tuned_decoder import decoder_in_place, read_decoder, save_decoder, use_decoder
from data_prep.safe_write import written_beside
from finetune.codec_tune.learner import CONTEXT_SEC, DecoderLearner
from finetune.codec_tune.losses import MelLoss
from finetune.codec_tune.recordings import Crops, Recording, hold_out, read_recordings
from finetune.codec_tune.settings import TuneSettings
from finetune.codec_tune.state import STATE, load_state, read_told, refuse_another, save_state, start_folder
from finetune.codec_tune.strength import choose_strength

MEASURED_SEC = 10.0
"""Of each held-out song at most so much, from its middle, is decoded and measured."""
DECODER, LOG = "decoder.safetensors", "log.jsonl"
FULL = "decoder-full.safetensors"
"""The best decoder of the run as it was learnt, where `DECODER` may have been drawn back."""
FORGET = 0.02
"""Other music's mel distance may grow by this share."""


@dataclass(frozen=True)
class Tuned:
    """Mel distance (nats, four resolutions) before and after, of held-out songs and, if given, of other music."""

    path: Path
    before: float
    after: float
    other_before: float | None
    other_after: float | None
    best_step: int
    strength: float
    """How far the decoder went from the old one (0) to the one that was learnt (1)."""
    full: float
    other_full: float | None
    """Both distances at strength 1."""
    left_out: list[str]


def tune(
    songs: Path,
    out: Path,
    codec: TransformersCodec,
    settings: TuneSettings,
    *,
    other: Path | None = None,
    forget: float = FORGET,
) -> Tuned:
    """Tune the codec's decoder on a folder of songs, or go on with a run that was stopped. Writes `out`.

    Where other music is given, its held-out pieces may lose a share `forget` of their mel distance; the decoder is
    drawn back until they do. The same run with another `forget` only chooses again.

    Raises:
        UserError: songs cannot be used, or `out` holds a run of other settings, songs or another codec.
        FloatingPointError: the loss is not finite; the best decoder so far is kept.
    """
    # 1. What it hears
    shortest_sec = settings.crop_sec + 2 * CONTEXT_SEC
    recordings, left_out = read_recordings(songs, codec, shortest_sec=shortest_sec)
    kept, held = hold_out(recordings, left_out)
    others, guard, more_left_out = [], [], []
    if other is not None:
        found, more_left_out = read_recordings(other, codec, shortest_sec=shortest_sec)
        others, guard = hold_out(found, more_left_out)
    crops = Crops(kept, others, other_share=settings.other_share, seed=settings.seed, hop=codec.hop_samples)

    # 2. What learns, and where it stands
    learner = DecoderLearner(codec, settings)
    old = dict(learner.before.state_dict())
    run = {"codec": codec.fingerprint, "songs": [one.name for one in recordings], **asdict(settings)}
    run["other_music"] = [one.name for one in (*others, *guard)]

    def measured() -> tuple[float, float | None]:
        with decoder_in_place(codec, learner.average):
            return measure(codec, learner.mel, held), measure(codec, learner.mel, guard) if guard else None

    def keep(told: dict[str, Any], tensors: dict[str, torch.Tensor], **words: str) -> None:
        save_decoder(out / DECODER, codec, tensors, _words(told) | words, old=old)

    told = _begin(out, run, learner)
    if told is None:
        before = measured()
        told = {"run": run, "step": 0, "before": before, "best": before[0], "best_step": 0, "other": before[1]}
        _log(out, {"step": 0, "held_out_mel": before[0], "other_mel": before[1]})
        keep(told, learner.tensors())

    # 3. The loop
    while told["step"] < settings.steps:
        losses = learner.step(crops, told["step"])
        told["step"] += 1
        if told["step"] % settings.every_steps == 0 or told["step"] == settings.steps:
            now, aside = measured()
            _log(out, {"step": told["step"], **losses, "held_out_mel": now, "other_mel": aside})
            if now < told["best"]:
                told |= {"best": now, "best_step": told["step"], "other": aside}
                keep(told, learner.tensors())
            save_state(out, learner.modules, learner.optimizers, told)

    # 4. How much of it is used
    learner.decoder.requires_grad_(False).eval()
    (first, first_other), full, other_full = told["before"], told["best"], told["other"]
    own, aside, strength = full, other_full, 1.0
    if guard:
        tensors = _as_learnt(out)
        whole = whole_of(old, tensors) if is_low_rank(tensors) else tensors
        decoder, at_most = learner.average, first_other * (1 + forget)
        own_now, other_now = (_measuring(codec, learner, songs) for songs in (held, guard))
        chosen = choose_strength(decoder, old, whole, own=own_now, other=other_now, other_at_most=at_most)
        own, aside, strength = chosen.own, chosen.other, chosen.strength
        _log(out, {"step": told["best_step"], "strength": strength, "held_out_mel": own, "other_mel": aside})
        keep(told | {"best": own}, part_way(old, tensors, strength), strength=f"{strength:g}")
    learner.decoder.load_state_dict(old)  # a file of changes changes the codec's own decoder
    use_decoder(codec, out / DECODER)
    lines, step = [*left_out, *more_left_out], int(told["best_step"])
    return Tuned(out / DECODER, first, own, first_other, aside, step, strength, full, other_full, lines)


def _measuring(codec: TransformersCodec, learner: DecoderLearner, recordings: list[Recording]) -> Callable[[], float]:
    """Measures the learner's mean decoder on these recordings, whenever it is called."""

    def measured() -> float:
        with decoder_in_place(codec, learner.average):
            return measure(codec, learner.mel, recordings)

    return measured


def _as_learnt(out: Path) -> dict[str, torch.Tensor]:
    """The run's best decoder, kept beside the one that is drawn back, so that a strength can be chosen again."""
    if not (out / FULL).exists():
        with written_beside(out / FULL) as part:
            shutil.copyfile(out / DECODER, part)
    return read_decoder(out / FULL)[0]


@torch.inference_mode()
def measure(codec: TransformersCodec, mel: MelLoss, recordings: Sequence[Recording]) -> float:
    """Mean mel distance of recordings decoded from their codes, in nats."""
    distances = []
    for one in recordings:
        n_frames = min(one.codes.shape[1], codec.spec.frames_in(MEASURED_SEC))
        start = (one.codes.shape[1] - n_frames) // 2
        made = codec.decode(np.ascontiguousarray(one.codes[:, start : start + n_frames]))
        hop = codec.hop_samples
        wanted = torch.from_numpy(one.audio[:, start * hop : (start + n_frames) * hop].astype(np.float32) / 32767)
        pair = (audio[:, None].to(codec.device) for audio in (made, wanted))
        distances.append(float(mel(*pair)))
    return float(np.mean(distances))


def _begin(out: Path, run: dict[str, Any], learner: DecoderLearner) -> dict[str, Any] | None:
    """What an earlier run kept, or None where there is none."""
    if not (out / STATE).exists():
        start_folder(out, "the decoder", (DECODER, FULL, LOG), (LOG, FULL))
        return None
    held = read_told(out)
    refuse_another(out, [name for name, value in run.items() if held["run"].get(name) != value])
    told = load_state(out, learner.modules, learner.optimizers)
    learner.sync()
    return told


def _words(told: dict[str, Any]) -> dict[str, str]:
    """What the decoder's file says of how it was made."""
    return {
        "songs": str(len(told["run"]["songs"])),
        "step": str(told["step"]),
        "held_out_mel_before": f"{told['before'][0]:.4f}",
        "held_out_mel_after": f"{told['best']:.4f}",
    }


def _log(out: Path, line: dict[str, Any]) -> None:
    rounded = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")
    print("  ".join(f"{name} {value}" for name, value in rounded.items() if value is not None), flush=True)
