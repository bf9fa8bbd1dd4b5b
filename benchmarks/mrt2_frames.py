"""Time per frame of a random Magenta RealTime 2 of true size, beside what reading its weights takes at least.

    python -m benchmarks.mrt2_frames [mrt2_small] [--kinds plain,bf16] [--threads 1] [--frames 20] [--codec]

A frame reads every weight of the temporal stack once and of the depth stack twelve times, whatever the arithmetic; the
limit is those bytes divided by the speed of summing a large array with the same threads. A frame lasts 40 ms.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters.family.load import load_lm
from adapters.family.magenta_rt2.conditions import MagentaConditions
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.playing import bytes_per_frame, laid_out_for_playing
from adapters.family.magenta_rt2.spec import FRAME_RATE_HZ, SIZES
from adapters.family.magenta_rt2.steps import MagentaSteps
from data_prep.base_files import resolve_base
from data_prep.codec.spectrostream.shape import CodecShape
from data_prep.magenta_rt2.debug_base import write_debug_mrt2
from data_prep.magenta_rt2.files import find_files, load_magenta_codec

BYTES = {"plain": 4, "fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Per weight, of each kind of product (`adapters.decode.projections`)."""


def bandwidth() -> float:
    """Bytes per second of summing 1 GiB, best of five."""
    numbers = torch.ones(2**28)
    return numbers.nbytes / min(seconds(numbers.sum) for _ in range(5))


def seconds(run: Callable[[], object]) -> float:
    """What one call takes: on one thread in the process's own time, which other programs disturb least."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def measure_lm(name: str, kinds: list[Any], n_frames: int, folder: Path) -> None:
    """Print the language model's time per frame in each kind of product."""
    lm = load_lm(resolve_base(str(write_debug_mrt2(folder, spec=SIZES[name], codec=None, name=name))))
    assert isinstance(lm, MagentaLM)
    print(f"{name}: {lm.sizes.n_parameters:,} parameters, random")
    for kind in kinds:
        played = lm if kind == "plain" else laid_out_for_playing(lm, kind)
        times = sorted(frame_times(played, n_frames))
        read, speed, median = bytes_per_frame(lm, BYTES[kind]), bandwidth(), times[n_frames // 2]
        print(
            f"  {kind}: {median * 1e3:.0f} ms a frame (median of {n_frames}, fastest {times[0] * 1e3:.0f}), "
            f"{1 / FRAME_RATE_HZ / median:.2f} × real time; reads {read / 1e6:,.0f} MB, at {speed / 1e9:.1f} GB/s "
            f"{read / speed * 1e3:.0f} ms: {read / speed / median:.0%} of the bandwidth limit"
        )
        del played


def frame_times(lm: MagentaLM, n_frames: int) -> list[float]:
    """Seconds of each of some frames, once the windows are full."""
    steps = MagentaSteps(lm, MagentaConditions.unknown(1))

    def frame() -> None:
        steps.next(lambda logits, level: torch.multinomial(logits[:, 0].float().softmax(-1), 1))

    for _ in range(lm.sizes.window_frames + 2):
        frame()
    return [seconds(frame) for _ in range(n_frames)]


def measure_codec(n_frames: int, folder: Path) -> None:
    """Print the codec's time per frame, each way."""
    files = find_files(write_debug_mrt2(folder, codec=CodecShape(card=64)))
    codec = load_magenta_codec(files)
    stream, codes = codec.stream(), torch.zeros(12, 1, dtype=torch.int16)
    stream.push(codes)
    decode = sorted(seconds(lambda: stream.push(codes)) for _ in range(n_frames))[n_frames // 2]
    audio = torch.randn(2, n_frames * codec.hop_samples)
    encode = seconds(lambda: codec.encode([audio])) / n_frames
    n_weights = sum(weight.numel() for weight in codec.network.parameters())  # pyright: ignore[reportAttributeAccessIssue]
    print(f"codec: {n_weights:,} parameters; a frame: decode {decode * 1e3:.0f} ms, encode {encode * 1e3:.0f} ms")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=list(SIZES), default="mrt2_small")
    parser.add_argument("--kinds", default="plain,fp32,fp16,bf16,int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--codec", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        if given.codec:
            measure_codec(given.frames, Path(folder))
        else:
            measure_lm(given.name, given.kinds.split(","), given.frames, Path(folder))


if __name__ == "__main__":
    main()
