"""Memory and time of one step of `woodshed codec tune` on EnCodec at 32 kHz in its true size, with random weights.

    python -m benchmarks.codec_tune_memory [--rank 8] [--steps 3]

What a card must hold is counted: weights, gradients, moments and copies by their sizes, and what autograd keeps for
the way back by a hook on every saved tensor, each storage once. The time is this CPU's.
"""

import argparse
import tempfile
import time
from typing import Any

import numpy as np
import torch

from data_prep.codec.registry import load_codec
from data_prep.codec.resolve import resolve_codec
from data_prep.codec.transformers_codec import TransformersCodec
from finetune.codec_tune.learner import DecoderLearner
from finetune.codec_tune.recordings import Crops, Recording
from finetune.codec_tune.settings import TuneSettings

ENCODEC_32 = {
    "sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "num_filters": 64, "hidden_size": 128,
    "codebook_size": 2048, "target_bandwidths": [2.2], "num_lstm_layers": 2, "use_causal_conv": False,
    "use_conv_shortcut": False,
}  # fmt: skip
"""As facebook/musicgen-small has it."""
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    learner = DecoderLearner(random_codec(), TuneSettings(rank=args.rank, keep_old=True))
    codec = learner.codec
    rng = np.random.default_rng(0)
    song = Recording("noise", rng.integers(-3000, 3000, (1, 640 * 200)).astype(np.int16),
                     rng.integers(0, 2048, (4, 200)))  # fmt: skip
    crops = Crops([song], [song], other_share=0.5, seed=0, hop=codec.hop_samples)
    kept, seconds = 0.0, []
    for step in range(args.steps):
        started = time.process_time()
        if step == 0:
            kept = saved_bytes(lambda: learner.step(crops, 0))
        else:
            learner.step(crops, step)
            seconds.append(time.process_time() - started)
    whole = sum(value.nbytes for value in codec.model.state_dict().values())
    decoder = sum(value.nbytes for value in learner.decoder.parameters())
    moments = sum(value.nbytes for state in learner.optimizers["decoder"].state.values() for value in state.values())
    copies = 2 * decoder + sum(value.nbytes for value in learner.modules["decoder"].parameters()) * bool(args.rank) * 2
    print(f"codec {whole / MB:.0f} MB, of it decoder {decoder / MB:.0f} MB")
    print(f"gradients {decoder / MB:.0f} MB, moments {moments / MB:.0f} MB, old and mean decoder {copies / MB:.0f} MB")
    print(f"kept for the way back {kept / MB:.0f} MB (6 crops of 0.6 s with context)")
    print(f"together {(whole + decoder + moments + copies + kept) / MB:.0f} MB")
    print(f"{np.mean(seconds):.1f} s of CPU per step" if seconds else "")


def random_codec() -> TransformersCodec:
    """EnCodec as MusicGen has it, with random weights."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        EncodecModel(EncodecConfig(**ENCODEC_32)).save_pretrained(folder)
        codec = load_codec(resolve_codec(folder))
    assert isinstance(codec, TransformersCodec)
    return codec


def saved_bytes(step: Any) -> float:
    """Bytes of all storages that autograd saved while `step` ran, parameters included once."""
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return float(sum(held.values()))


if __name__ == "__main__":
    main()
