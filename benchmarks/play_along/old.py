"""Does a part fit what it plays along with? Drums learnt from rendered bands on the starter, judged on held-out pieces.

    python -m benchmarks.play_along /tmp/along --train 60 --steps 200 --held-out 12

Bands come from the starter's composer with every part rendered alone (FluidSynth), so that nothing leaks and the true
beats are known. Each held-out band is played along with twice: as it is, and (the control) after the adapter heard
another band's piece of another tempo. The part's beats (librosa's tracker) are held against the true beats of the band
that it should fit: F1 within 70 ms, over the tracker's own score on the true drums; and its tempo within 4 %, half and
double counted as wrong.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from adapters.play_along import HeardTrack
from adapters.sampler import AdapterSpec, Sampler
from configs.prep import PrepSettings
from configs.sample import SampleSettings
from configs.train import TrainSettings
from data_prep.base_files import resolve_base
from data_prep.prepare import prepare
from data_prep.write_audio import write_audio
from finetune.train import train
from starter.recipe.compose import HELD_OUT, compose
from starter.recipe.render import SYNTH_RATE_HZ, render_stems
from starter.recipe.score import Piece

WITHIN_SEC = 0.07
TEMPO_OFF = 0.04


def main() -> None:
    """Render, prepare, train, play, judge; what is there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=60, help="bands to learn from")
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--clip_sec", type=float, default=8.0)
    parser.add_argument("--lookahead_sec", type=float, default=0.32)
    parser.add_argument("--degraded", type=float, default=0.5, help="heard.degraded_share")
    parser.add_argument("--name", default="run", help="of the run in OUT, to keep several")
    args = parser.parse_args()
    begun = time.perf_counter()
    adapter = trained(args)
    print(f"trained after {time.perf_counter() - begun:.0f} s")
    scores = judged(args, adapter)
    (args.out / f"{args.name}.json").write_text(json.dumps(scores, indent=1))
    for name, values in scores.items():
        told = ", ".join(f"{measure} {np.mean([value[measure] for value in values]):.3f}" for measure in values[0])
        print(f"{name:8} {told}  (n = {len(values)})")


def trained(args: argparse.Namespace) -> Path:
    """The adapter of a run on rendered bands."""
    songs, data, run = args.out / "songs", args.out / "data", args.out / args.name
    for seed in range(args.train):
        write_band(compose(seed, drums=True), songs / f"band{seed:03}")
    settings = {"base": "starter", "pair": "drums|rest", "multitracks": True, "segment": {"max_sec": 30}}
    captions = {"sources": ["own"], "trigger": ""}
    prepare(songs, data, PrepSettings.model_validate({**settings, "captions": captions, "device": "cpu", "workers": 1}))
    if (run / "adapter").exists():
        return run / "adapter"
    wanted = {
        "steps": args.steps,
        "batch_size": 4,
        "accumulation": 1,
        "max_clip_sec": args.clip_sec,
        "checkpointing": False,
        "heard": {"lookahead_sec": args.lookahead_sec, "degraded_share": args.degraded},
        "optim": {"lr": 1e-3},
        "lora": {"rank": 16},
        "eval": {"every_steps": 0, "max_clips": 8},
        "preview": {"every_steps": 0},
        "loggers": [],
        "device": "cpu",
        "precision": "fp32",
    }
    return train(data, run, TrainSettings.model_validate(wanted))


def write_band(piece: Piece, folder: Path) -> None:
    """A file per part, and the words for its drums."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for role, audio in render_stems(piece).items():
        name = role if role in ("drums", "bass") else f"{role} part"
        write_audio(folder / f"{name}.wav", audio[None], SYNTH_RATE_HZ)
    (folder / "drums.txt").write_text(f"drums, {piece.manner}")


def judged(args: argparse.Namespace, adapter: Path) -> dict[str, list[dict[str, float]]]:
    """Scores of every held-out band: the part, the control, and the true drums."""
    how = {"duration_sec": 10.0, "seed": 0, "device": "cpu"}
    sampler = Sampler.load(resolve_base("starter"), [AdapterSpec(adapter)], SampleSettings.model_validate(how))
    pieces = [compose(HELD_OUT + number, drums=True) for number in range(args.held_out)]
    assert sampler.codec is not None
    rate_hz = sampler.codec.sample_rate_hz
    bands = [render_stems(piece, rate_hz) for piece in pieces]
    heard = [_heard(sampler, band) for band in bands]
    found: dict[str, list[dict[str, float]]] = {"part": [], "control": [], "true": []}
    for number, (piece, band) in enumerate(zip(pieces, bands, strict=True)):
        others = sorted(range(len(pieces)), key=lambda other: -abs(np.log(pieces[other].tempo_bpm / piece.tempo_bpm)))
        for name, track in (("part", heard[number]), ("control", heard[others[0]])):
            take = sampler.sample([f"drums, {piece.manner}"], also=[track.conditions])[0]
            part = track.cut(take.waveform)[0].numpy()
            found[name].append(score(part, rate_hz, piece))
            write_audio(args.out / args.name / f"{number:02}-{name}.wav", part[None], rate_hz)
        found["true"].append(score(band["drums"][: 10 * rate_hz], rate_hz, piece))
    return found


def _heard(sampler: Sampler, band: dict[str, np.ndarray]) -> HeardTrack:
    codec = sampler.codec
    assert codec is not None
    mixed = np.sum([audio for role, audio in band.items() if role != "drums"], axis=0)[: 10 * codec.sample_rate_hz]
    audio = torch.from_numpy(np.repeat(mixed[None], codec.channels, axis=0).astype(np.float32))
    codes = torch.from_numpy(codec.encode([audio])[0].astype(np.int64).T.copy())
    return HeardTrack("band", 0.0, audio, codes, codec.sample_rate_hz)


def score(part: np.ndarray, rate_hz: int, piece: Piece) -> dict[str, float]:
    """F1 of the part's beats against the band's, and whether its tempo is the band's."""
    import librosa

    if np.abs(part).max() < 1e-3:
        return {"f1": 0.0, "tempo": 0.0}
    bpm, beats = librosa.beat.beat_track(y=part, sr=rate_hz, units="time")
    truth = np.asarray([at for at in piece.beats_sec if at < len(part) / rate_hz])
    hits = sum(np.abs(truth - at).min() <= WITHIN_SEC for at in beats)
    found = sum(np.abs(beats - at).min() <= WITHIN_SEC for at in truth) if len(beats) else 0
    precision, recall = hits / max(len(beats), 1), found / max(len(truth), 1)
    near = abs(float(np.ravel(bpm)[0]) / piece.tempo_bpm - 1) <= TEMPO_OFF
    return {"f1": 2 * precision * recall / max(precision + recall, 1e-9), "tempo": float(near)}


if __name__ == "__main__":
    main()
