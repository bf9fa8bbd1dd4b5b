"""How soon `woodshed live` answers, and whether it keeps up.

    python -m benchmarks.live --base starter --precision int8
    python -m benchmarks.live --base debug-mrt2 --chunk_sec 0.12 --buffer_sec 0.1
    python -m benchmarks.live --random mrt2_small --precision int8    # a true size: how fast, beside what memory allows

The latency is that of a listener on this machine: from the call that a message makes, to the moment at which the first
sample is heard that differs from the same piece without it. The listener is the one that every page is: it begins when
`buffer_sec` of music are there, and hears one second per second. The piece without the change is made beforehand, so
the first changed sample is found by comparison and not by what the program says of itself.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.family.magenta_rt2.spec import SIZES
from benchmarks.measure import environment
from benchmarks.mrt2_frames import bandwidth
from configs.live import LiveSettings
from data_prep.codec.spectrostream.shape import CodecShape
from data_prep.magenta_rt2.debug_base import write_debug_mrt2
from finetune.live.play_clock import PlayClock
from finetune.live.player import Chunk, Player
from finetune.live.run import open_session
from finetune.live.session import LiveSession

CHANGE_AFTER_SEC = (1.1, 1.25, 1.4, 1.55, 1.7)
"""At several places within a chunk."""
ROOM_SEC = 4.0
TRUE_SIZE_SEC = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--chunk_sec", type=float, nargs="+", default=[0.5])
    parser.add_argument("--buffer_sec", type=float, nargs="+", default=[0.75])
    parser.add_argument("--random", help="Not a base but a random one of this size: mrt2_small or mrt2_base.")
    args = parser.parse_args()
    print(environment())
    if args.random:
        with tempfile.TemporaryDirectory() as folder:
            _true_size(args.random, args.precision, Path(folder))
        return
    for chunk_sec, buffer_sec in zip(args.chunk_sec, args.buffer_sec, strict=True):
        settings = LiveSettings(chunk_sec=chunk_sec, buffer_sec=buffer_sec, precision=args.precision, fade_sec=0.0)
        with tempfile.TemporaryDirectory() as folder:
            session = open_session([], settings, base=args.base, prompts=["slow piano"], folder=Path(folder))
            try:
                _report(session, chunk_sec, buffer_sec)
            finally:
                session.close()


def _report(session: LiveSession, chunk_sec: float, buffer_sec: float) -> None:
    unchanged, factor = _straight(session)
    found = [_latency(session, unchanged, after) for after in CHANGE_AFTER_SEC]
    latencies = [latency for latency, _, _ in found]
    assert session.worker.sampler is not None
    precision = session.worker.sampler.label
    print(
        f"chunk {chunk_sec:g} s, ahead {buffer_sec:g} s, {precision}: real-time factor {factor:.2f} alone; "
        f"latency median {statistics.median(latencies):.2f} s, worst {max(latencies):.2f} s "
        f"(the program says {', '.join(f'{told:.2f}' for _, told, _ in found)}); "
        f"gaps {sum(gaps for _, _, gaps in found)}; load {os.getloadavg()[0]:.1f}"
    )


def _true_size(size: str, precision: str, folder: Path) -> None:
    """How fast a Magenta RealTime of true size is made, and the share of what reading its weights takes at least."""
    base = write_debug_mrt2(folder / "base", spec=SIZES[size], codec=CodecShape(), name=size)
    settings = LiveSettings.model_validate({"precision": precision})
    session = open_session([], settings, base=str(base), prompts=["slow piano"], folder=folder)
    sampler = session.worker.sampler
    assert sampler is not None and session.worker.states is not None
    player = Player(sampler, session.worker.states, lambda: session.controls, seed=0)
    while player.second < TRUE_SIZE_SEC:
        player.next_chunk()
    generation = player.music.generation
    begun, codes = time.process_time(), generation.generated
    generation.advance(25)
    frame_sec = (time.process_time() - begun) / (generation.generated - codes)
    read, speed = sampler.engine.bytes_per_step, bandwidth()
    print(
        f"{size}, random, {sampler.label}, {torch.get_num_threads()} thread(s): real-time factor "
        f"{player.real_time_factor:.2f} with the codec; the language model {frame_sec * 1e3:.0f} ms of process time a "
        f"frame, which reads {read / 1e6:,.0f} MB: {read / speed / frame_sec:.0%} of the limit at "
        f"{speed / 1e9:.1f} GB/s; "
        f"delay {player.delay_frames / sampler.frame_rate:.2f} s; load {os.getloadavg()[0]:.1f}"
    )
    player.close()
    session.close()


def _straight(session: LiveSession) -> tuple[Tensor, float]:
    """The piece without a change, and how fast it is made when nobody waits for it."""
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(session.worker.sampler, session.worker.states, lambda: session.controls, seed=0)
    chunks: list[Tensor] = []
    while player.second < max(CHANGE_AFTER_SEC) + ROOM_SEC:
        chunks.append(player.next_chunk().waveform)
    factor = player.real_time_factor or 0.0
    player.close()
    return torch.cat(chunks, dim=1), factor


class _Listener:
    """Keeps the music and when it came, and hears it as a page does."""

    def __init__(self, session: LiveSession) -> None:
        self.chunks: list[tuple[float, Chunk]] = []
        self.run = session.wanted.run
        self.changed = threading.Condition()
        self.leave = session.subscribe(self._hear)

    def _hear(self, event: Any) -> None:
        if isinstance(event, Chunk) and event.run == self.run:
            with self.changed:
                self.chunks.append((time.monotonic(), event))
                self.changed.notify_all()

    def seconds(self, rate_hz: int) -> float:
        return sum(chunk.waveform.shape[1] for _, chunk in self.chunks) / rate_hz

    def heard_at(self, sample: int, rate_hz: int, begin_sec: float) -> float:
        """The moment at which a sample sounds, by the clock that every page follows, gaps included."""
        now = [self.chunks[0][0]]
        clock, pushed = PlayClock(begin_sec, lambda: now[0]), 0
        for came, chunk in self.chunks:
            now[0] = came
            pushed += chunk.waveform.shape[1]
            clock.push(chunk.waveform.shape[1] / rate_hz)
            if pushed > sample and clock.hears:
                return came + clock.level_sec - (pushed - sample) / rate_hz
        raise ValueError("the sample never sounds")


def _latency(session: LiveSession, unchanged: Tensor, after_sec: float) -> tuple[float, float, int]:
    session.set_prompts([("slow piano", 1.0)])
    session.set_sampling(temperature=1.0, guidance=3.0)
    session.stop()
    before = session.wanted.run
    session.reset(seed=0)
    while session.wanted.run == before:
        time.sleep(0.01)
    listener = _Listener(session)
    rate_hz = session.about.sample_rate_hz
    session.start()
    with listener.changed:
        listener.changed.wait_for(lambda: listener.seconds(rate_hz) > 0, 60)
    time.sleep(after_sec)
    asked = time.monotonic()
    session.set_sampling(temperature=0.3)
    with listener.changed:
        listener.changed.wait_for(lambda: listener.seconds(rate_hz) > after_sec + ROOM_SEC - 1, 120)
    session.stop()
    listener.leave()
    played = torch.cat([chunk.waveform for _, chunk in listener.chunks], dim=1)
    n = min(played.shape[1], unchanged.shape[1])
    differs = (played[:, :n] - unchanged[:, :n]).abs().amax(0) > 1e-4
    first = int(differs.nonzero()[0])
    pace = session.pace()
    heard = listener.heard_at(first, rate_hz, session.controls.buffer_sec)
    return heard - asked, pace.control_latency_sec or 0.0, pace.gaps


if __name__ == "__main__":
    main()
