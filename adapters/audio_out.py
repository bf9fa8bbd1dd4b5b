"""Finished music into files that say how they were made, or to a player while it is still being made."""

import json
import re
import shutil
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError
from data_prep.safe_write import disk_error, storing
from data_prep.write_audio import write_audio

MAX_SLUG_BYTES = 200
"""Of a prompt in a file name. A seed, a number and the ending fit behind it within the usual 255."""

MAX_TITLE_BYTES, MAX_WAV_COMMENT_BYTES = 200, 1500
"""libsndfile (1.2) writes up to about 2 KiB of texts into a WAV file, and none where there are more. FLAC has room."""


@dataclass(frozen=True)
class Levels:
    """How loud a piece is, in dB relative to full scale."""

    peak_db: float
    rms_db: float
    samples_over: int
    """Samples beyond full scale: they are limited in the file."""

    @classmethod
    def of(cls, audio: Float[Tensor, "C N"]) -> "Levels":
        """Measure; digital silence is −120 dB."""
        peak = float(audio.abs().max()) if audio.numel() else 0.0
        rms = float(audio.square().mean().sqrt()) if audio.numel() else 0.0
        return cls(_db(peak), _db(rms), int((audio.abs() > 1).sum()))

    def __str__(self) -> str:
        limited = f", {self.samples_over} samples limited to full scale" if self.samples_over else ""
        silent = ", silent" if self.peak_db < -60 else ""
        return f"peak {self.peak_db:.1f} dB, mean {self.rms_db:.1f} dB{limited}{silent}"


def write_piece(path: Path, title: str, audio: Float[Tensor, "C N"], rate_hz: int, made_by: Mapping[str, Any]) -> None:
    """Write a file that `take_name` has taken, with everything that made it in its tags; none is left if that fails.

    Raises:
        UserError: the disk is full or refuses.
    """
    title, comment = _cut(title or "untitled", MAX_TITLE_BYTES), json.dumps(dict(made_by), ensure_ascii=False)
    if path.suffix == ".wav" and len(comment.encode()) > MAX_WAV_COMMENT_BYTES:
        comment = _shortened(made_by, MAX_WAV_COMMENT_BYTES)
    tags = {"title": title, "software": "woodshed", "comment": comment}
    try:
        write_audio(path, audio.numpy(), rate_hz, tags)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _shortened(made_by: Mapping[str, Any], n_bytes: int) -> str:
    """The same as JSON of at most so many bytes: the prompt is cut, and how long it was is said."""
    prompt = made_by["prompt"] if isinstance(made_by["prompt"], str) else json.dumps(made_by["prompt"])
    told = {**made_by, "prompt": "", "prompt_characters": len(prompt)}
    kept = n_bytes - len(json.dumps(told, ensure_ascii=False).encode())
    while True:
        told["prompt"] = _cut(prompt, max(0, kept)) + "…"
        comment = json.dumps(told, ensure_ascii=False)
        over = len(comment.encode()) - n_bytes  # quotes and line breaks take more room in JSON
        if over <= 0 or kept <= 0:
            return comment
        kept -= over


def slug(text: str, longest: int = 60) -> str:
    """A prompt as a file name: letters, digits and dashes of any script, whole words up to `longest` characters.

    It takes at most MAX_SLUG_BYTES in UTF-8: letters of many scripts have three bytes, and file names have a limit.
    """
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else _cut(word[:longest], MAX_SLUG_BYTES)
        if len(longer) > longest or len(longer.encode()) > MAX_SLUG_BYTES:
            break
        name = longer
    return name or "piece"


def _cut(text: str, n_bytes: int) -> str:
    """As much of a text as fits, in whole characters."""
    return text.encode()[:n_bytes].decode(errors="ignore")


def take_name(folder: Path, name: str, kind: str) -> Path:
    """`name.kind` in the folder, or `name-2.kind` … if that is taken; an empty file takes it from other processes.

    Raises:
        UserError: the disk is full or refuses.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{name}.{kind}", 2
    while True:
        try:
            path.open("xb").close()
            return path
        except FileExistsError:
            path, number = folder / f"{name}-{number}.{kind}", number + 1
        except OSError as error:
            raise disk_error(error, path) from error


class PcmPipe:
    """Writes chunks as 16-bit PCM, with or without a WAV header in front, to a stream that may close at any time."""

    def __init__(self, stream: IO[bytes], rate_hz: int, channels: int, *, header: bool) -> None:
        self.stream = stream
        if header:
            self.stream.write(endless_wav_header(rate_hz, channels))

    def write(self, chunk: Float[Tensor, "C n"]) -> None:
        """One chunk.

        Raises:
            BrokenPipeError: the reader has left.
        """
        self.stream.write(pcm16(chunk))
        self.stream.flush()


def pcm16(chunk: Float[Tensor, "C n"]) -> bytes:
    """Interleaved little-endian 16-bit samples."""
    scaled = (chunk.clamp(-1, 1) * 32767).round().to(torch.int16)  # [C, n]
    return np.ascontiguousarray(scaled.T.numpy()).astype("<i2").tobytes()


def endless_wav_header(rate_hz: int, channels: int) -> bytes:
    """A WAV header for a length nobody knows yet: the largest size there is, which players read as "until it ends"."""
    frame = 2 * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate_hz, rate_hz * frame, frame, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + form + b"data\xff\xff\xff\xff"


PLAYERS: dict[str, list[str]] = {
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "error", "-f", "wav", "-i", "pipe:0"],
    "mpv": ["--no-terminal", "--no-video", "-"],
    "play": ["-q", "-t", "wav", "-"],
    "paplay": ["--raw", "--format=s16le", "--rate={rate}", "--channels={channels}"],
    "aplay": ["-q", "-"],
}
"""Programs that play a stream on their standard input, with what they need to be told. paplay takes it raw."""


def find_player() -> str:
    """The first player that this machine has.

    Raises:
        UserError: there is none.
    """
    name = next((name for name in PLAYERS if shutil.which(name)), None)
    if name is None:
        raise UserError(
            "no player was found on this machine",
            fix=f"install one of {', '.join(PLAYERS)}; or pipe it yourself: woodshed sample … --pipe wav | your-player",
        )
    return name


def start_player(rate_hz: int, channels: int) -> tuple[subprocess.Popen, PcmPipe]:
    """The first player that this machine has, and the pipe into it.

    Raises:
        UserError: there is none.
    """
    name = find_player()
    words = [word.format(rate=rate_hz, channels=channels) for word in PLAYERS[name]]
    player = subprocess.Popen([name, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert player.stdin is not None
    return player, PcmPipe(player.stdin, rate_hz, channels, header=name != "paplay")


def stdout_pipe(rate_hz: int, channels: int, *, header: bool) -> PcmPipe:
    """The pipe into whatever reads this process's standard output.

    Raises:
        UserError: standard output is a terminal.
    """
    if sys.stdout.isatty():
        raise UserError("--pipe writes audio to standard output, which is this terminal", fix="… --pipe wav | ffplay -")
    return PcmPipe(sys.stdout.buffer, rate_hz, channels, header=header)


def _db(amplitude: float) -> float:
    return 20 * float(np.log10(max(amplitude, 1e-6)))
