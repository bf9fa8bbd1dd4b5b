"""Does a file really decode? Writes a second of sound in several formats and reads it back."""

import math
import tempfile
import wave
from array import array
from pathlib import Path

from finetune.doctor.check import Check

RATE_HZ = 32_000
HZ = 440.0
ENCODED = {"flac": ("flac", RATE_HZ), "ogg": ("libopus", 48_000), "m4a": ("aac", RATE_HZ)}
"""File ending → FFmpeg's encoder and the rate it is given; opus knows no 32 kHz."""


def check_decoding() -> Check:
    """A sine as wav, flac, ogg and m4a: each must come back with about its length and loudness."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tone.wav"
        _write_wav(source)
        for ending in ("wav", *ENCODED):
            try:
                path = source if ending == "wav" else _encode(source, ending)
                _judge(path)
            except Exception as error:  # whatever a broken library raises is the finding
                wrong.append(f"{ending}: {type(error).__name__}, {error}")
    if wrong:
        return Check(
            "Decoding", "broken", "; ".join(wrong), 'uv pip install --reinstall "av>=17,<19" (its wheels carry FFmpeg)'
        )
    return Check("Decoding", "ok", f"wrote and read wav, {', '.join(ENCODED)}")


def _write_wav(path: Path) -> None:
    tone = array("h", (int(16_000 * math.sin(2 * math.pi * HZ * n / RATE_HZ)) for n in range(RATE_HZ)))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(tone.tobytes())


def _encode(source: Path, ending: str) -> Path:
    import av

    target = source.with_suffix(f".{ending}")
    encoder, rate_hz = ENCODED[ending]
    with av.open(str(source)) as heard, av.open(str(target), "w") as written:
        sound = written.add_stream(encoder, rate=rate_hz)
        assert isinstance(sound, av.AudioStream)
        sound.layout = "mono"
        for frame in heard.decode(audio=0):
            written.mux(sound.encode(frame))
        written.mux(sound.encode(None))
    return target


def _judge(path: Path) -> None:
    """Raises ValueError when the sound is not that of the tone: its length within 0.1 s, its level within 1 dB."""
    import numpy as np

    from data_prep.decode import stream

    sound = np.concatenate(list(stream(path, sample_rate_hz=RATE_HZ, channels=1)), axis=1)[0]  # [N]
    if abs(len(sound) / RATE_HZ - 1) > 0.1:
        raise ValueError(f"{len(sound) / RATE_HZ:.2f} s came back out of 1.00")
    level_db = 20 * math.log10(float(np.sqrt(np.mean(sound**2))) / (16_000 / 32_768 / math.sqrt(2)) + 1e-9)
    if abs(level_db) > 1:
        raise ValueError(f"came back {level_db:+.1f} dB off")
