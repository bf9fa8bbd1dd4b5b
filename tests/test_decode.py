import os
import resource
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
import soundfile

from data_prep.decode import AudioError, Source, probe, stream
from data_prep.fold_down import mixing_matrix
from data_prep.measure import TrackScan, measure
from data_prep.resample import rechunk, resample

RATE_HZ = 44_100


def tone(hz: float, rate_hz: int, sec: float, channels: int = 2, gain: float = 0.5) -> np.ndarray:
    t = np.arange(round(sec * rate_hz)) / rate_hz
    return np.stack([gain * np.sin(2 * np.pi * hz * t + c) for c in range(channels)]).astype(np.float32)


def encode(path: Path, audio: np.ndarray, codec: str, rate_hz: int = RATE_HZ) -> Path:
    """Write [C, N] through FFmpeg with any of its encoders, with a title."""
    if codec == "vorbis":  # PyAV has no encoder for it
        soundfile.write(path, audio.T, rate_hz, format="OGG", subtype="VORBIS")
        return path
    with av.open(str(path), "w", format="asf" if path.suffix == ".wma" else None) as out:
        out.metadata["title"] = "Night Train"
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(audio)]
        target: Any = out.add_stream(codec, rate=rate_hz, layout=layout)
        if codec == "wmav2":
            target.bit_rate = 128_000
        size = target.codec_context.frame_size or 1024
        resampler = av.AudioResampler(target.format.name, layout, rate_hz, frame_size=size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(target.encode(piece))
        out.mux(target.encode(None))
    return path


def read(path: Path, **wanted: int) -> np.ndarray:
    return np.concatenate(list(stream(path, **wanted)), axis=1)  # pyright: ignore[reportArgumentType]


def snr_db(heard: np.ndarray, hz: float, rate_hz: int, skip: int = 3000) -> tuple[float, float]:
    """How far everything but the tone lies below it, and the tone's amplitude, by a least-squares fit."""
    y = heard[skip:-skip].astype(np.float64)
    t = 2 * np.pi * hz * np.arange(len(y)) / rate_hz
    basis = np.stack([np.sin(t), np.cos(t)], axis=1)
    fit = np.linalg.lstsq(basis, y, rcond=None)[0]
    return 10 * np.log10(np.square(y).mean() / np.square(y - basis @ fit).mean()), float(np.hypot(*fit))


LOSSY = [
    ("a.mp3", "libmp3lame", RATE_HZ), ("a.ogg", "vorbis", RATE_HZ), ("a.opus", "libopus", 48_000),
    ("a.m4a", "aac", RATE_HZ), ("a.wma", "wmav2", RATE_HZ), ("a.aac", "aac", RATE_HZ), ("a.mka", "libopus", 48_000),
]  # fmt: skip
LOSSLESS = [
    ("a.wav", "pcm_s16le"), ("a.wav", "pcm_s24le"), ("a.wav", "pcm_s32le"), ("a.wav", "pcm_f32le"),
    ("a.wav", "pcm_f64le"), ("a.flac", "flac"), ("a.aiff", "pcm_s16be"), ("a.m4a", "alac"), ("a.caf", "pcm_s16le"),
    ("a.w64", "pcm_s16le"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "rate_hz"), LOSSY)
def test_lossy_formats(tmp_path: Path, name: str, codec: str, rate_hz: int) -> None:
    audio = tone(440, rate_hz, 2.0)
    path = encode(tmp_path / name, audio, codec, rate_hz)
    info, heard = probe(path), read(path)
    assert (info.sample_rate_hz, info.channels) == (rate_hz, 2)
    assert abs(heard.shape[1] - audio.shape[1]) <= 4096
    assert snr_db(heard[0], 440, rate_hz, 8000)[0] > 25
    assert measure(path).flags == ()


@pytest.mark.parametrize(("name", "codec"), LOSSLESS)
def test_lossless_formats(tmp_path: Path, name: str, codec: str) -> None:
    audio = tone(440, RATE_HZ, 1.5)
    np.testing.assert_allclose(read(encode(tmp_path / name, audio, codec)), audio, atol=2**-15)


def test_eight_bits_and_low_rates(tmp_path: Path) -> None:
    audio = tone(300, 8000, 1.0, channels=1)
    np.testing.assert_allclose(read(encode(tmp_path / "a.wav", audio, "pcm_u8", 8000)), audio, atol=2**-7)


def test_name_does_not_matter(tmp_path: Path) -> None:
    audio = tone(440, RATE_HZ, 0.5)
    path = encode(tmp_path / "x.flac", audio, "flac").rename(tmp_path / "é\n'-song, really.mp3")
    np.testing.assert_allclose(read(path), audio, atol=2**-15)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    np.testing.assert_allclose(read(path.rename(odd)), audio, atol=2**-15)


def test_a_url_like_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, RATE_HZ, 0.2).T, RATE_HZ)
    (tmp_path / "a.wav").rename(tmp_path / "http:x")
    monkeypatch.chdir(tmp_path)
    assert read(Path("http:x")).shape == (2, 8820)


def test_probe_reads_tags_and_length(tmp_path: Path) -> None:
    info = probe(encode(tmp_path / "a.flac", tone(440, RATE_HZ, 1.5), "flac"))
    assert info.tags["title"] == "Night Train"
    assert info.codec == "flac" and info.duration_sec == pytest.approx(1.5)


def test_audio_of_a_video_and_cover_art(tmp_path: Path) -> None:
    audio = tone(440, 48_000, 1.0)
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mjpeg", rate=10, width=16, height=16, pix_fmt="yuvj420p")
        sound = out.add_stream("flac", rate=48_000, layout="stereo")
        for index in range(30):  # the picture lasts three times as long as the sound
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            out.mux(video.encode(picture.reformat(format="yuvj420p")))
        for at in range(0, 48_000, 4608):
            ints = np.ascontiguousarray((audio[:, at : at + 4608].T * 32767).astype(np.int16).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(ints, format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
            out.mux(sound.encode(frame))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    np.testing.assert_allclose(read(path), audio, atol=2**-14)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_a_tone_and_the_length(tmp_path: Path, rate_hz: int) -> None:
    """Seams would show as noise: blocks of an odd length, 110 dB."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(997, rate_hz, 2.0).T, rate_hz, subtype="FLOAT")
    blocks = list(stream(path, sample_rate_hz=32_000, block_sec=0.0317))
    heard = np.concatenate(blocks, axis=1)
    assert {block.shape[1] for block in blocks[:-1]} == {round(0.0317 * 32_000)}
    assert heard.shape == (2, 64_000)
    noise_db, gain = snr_db(heard[0], 997, 32_000)
    assert noise_db > 110
    assert gain == pytest.approx(0.5, abs=1e-4)


def test_resampling_removes_what_would_alias() -> None:
    high = tone(18_000, 44_100, 1.0, channels=1)
    heard = np.concatenate(list(resample(iter([high]), 44_100, 32_000)), axis=1)
    assert np.abs(heard[:, 2000:-2000]).max() < 1e-5


@pytest.mark.parametrize(("samples", "size"), [(0, 5), (4, 5), (5, 5), (23, 5), (1000, 7)])
def test_rechunk(samples: int, size: int) -> None:
    whole = np.arange(samples, dtype=np.float32)[None]
    pieces = [whole[:, at : at + 3] for at in range(0, samples, 3)]
    out = list(rechunk(pieces, size))
    assert all(piece.shape[1] == size for piece in out[:-1])
    np.testing.assert_array_equal(np.concatenate(out, axis=1) if out else whole, whole)


def test_channels(tmp_path: Path) -> None:
    left, right = tone(440, RATE_HZ, 0.3, 1)[0], tone(700, RATE_HZ, 0.3, 1)[0]
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "m.wav", left, RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "s.wav", channels=1)[0], (left + right) / 2, atol=1e-6)
    np.testing.assert_array_equal(read(tmp_path / "m.wav", channels=2), np.stack([left, left]))


def test_surround_is_folded_down(tmp_path: Path) -> None:
    audio = np.zeros((6, 2000), np.float32)  # FL FR FC LFE and two surrounds
    audio[0], audio[2], audio[3] = 0.5, 0.25, 0.9
    left, right = read(encode(tmp_path / "a.wav", audio, "pcm_f32le"), channels=2)
    gains = 1 + 2 * 0.5**0.5
    np.testing.assert_allclose(left, (0.5 + 0.25 * 0.5**0.5) / gains, atol=1e-6)
    np.testing.assert_allclose(right, 0.25 * 0.5**0.5 / gains, atol=1e-6)


@pytest.mark.parametrize(
    "names", [("FC",), ("FL", "FR"), ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"), ("?",) * 5]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_no_mix_can_clip(names: tuple[str, ...], channels: int) -> None:
    np.testing.assert_allclose(mixing_matrix(names, channels).sum(axis=1), 1.0, atol=1e-6)


def test_same_music_has_the_same_hash(tmp_path: Path) -> None:
    audio = tone(440, RATE_HZ, 1.0)
    wav, flac = encode(tmp_path / "a.wav", audio, "pcm_s16le"), encode(tmp_path / "b.flac", audio, "flac")
    assert measure(wav).audio_sha256 == measure(flac).audio_sha256
    other = audio.copy()
    other[1, 1234] += 0.01
    assert measure(encode(tmp_path / "c.wav", other, "pcm_s16le")).audio_sha256 != measure(wav).audio_sha256
    early = np.repeat(tone(440, RATE_HZ, 3.0, 1), 2, axis=0)
    late = early.copy()
    late[1, 1000] += 0.1  # the sides differ in the first second alone
    both = [measure(encode(tmp_path / f"{i}.wav", x, "pcm_s16le")).audio_sha256 for i, x in enumerate((early, late))]
    assert both[0] != both[1]
    mono, twice = audio[:1], np.repeat(audio[:1], 2, axis=0)
    a, b = encode(tmp_path / "d.wav", mono, "pcm_s16le"), encode(tmp_path / "e.wav", twice, "pcm_s16le")
    assert measure(a).audio_sha256 == measure(b).audio_sha256


def test_measure(tmp_path: Path) -> None:
    audio = np.concatenate([tone(440, RATE_HZ, 1.0), np.zeros((2, RATE_HZ), np.float32)], axis=1)
    audio[0, :100] = 1.0
    soundfile.write(tmp_path / "a.wav", audio.T, RATE_HZ, subtype="FLOAT")
    found = measure(tmp_path / "a.wav")
    levels = np.array(found.levels_db)
    assert isinstance(found, TrackScan) and found.duration_sec == 2.0 and len(levels) == 40
    np.testing.assert_allclose(levels[1:20], 20 * np.log10(0.5) - 3.01, atol=0.1)
    assert (levels[20:] == -200).all()
    assert found.peak == 1.0 and found.clipped_share == pytest.approx(100 / (4 * RATE_HZ))
    with pytest.raises(AudioError, match="longer than 0:01"):
        measure(tmp_path / "a.wav", max_sec=1.0)


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.35, 0.8])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.ogg", "vorbis"),
        ("a.opus", "libopus"), ("a.aiff", "pcm_s16be"), ("a.wma", "wmav2"), ("a.mka", "libopus"),
    ],
)  # fmt: skip
def test_cut_files_are_refused_with_the_place(tmp_path: Path, name: str, codec: str, share: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 4 * 48_000)).astype(np.float32)
    path = cut(encode(tmp_path / name, noise, codec, 48_000), share)
    with pytest.raises(AudioError, match=r"(truncated|corrupt).* at 0:0[0-3]"):
        measure(path)


def test_a_cut_m4a_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not recognise"):
        measure(cut(encode(tmp_path / "a.m4a", tone(440, RATE_HZ, 3.0), "aac"), 0.5))


def test_one_damaged_spot_is_tolerated_and_flagged_many_are_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 6 * RATE_HZ)).astype(np.float32)
    data = bytearray(encode(tmp_path / "a.flac", noise, "flac").read_bytes())
    once = data.copy()
    once[len(data) // 2 : len(data) // 2 + 4] = b"\0\0\0\0"
    (tmp_path / "once.flac").write_bytes(once)
    assert measure(tmp_path / "once.flac").duration_sec == pytest.approx(6.0, abs=0.4)
    for at in range(len(data) // 8, len(data), len(data) // 40):
        data[at : at + 4000] = bytes(4000)
    (tmp_path / "often.flac").write_bytes(data)
    with pytest.raises(AudioError, match=r"corrupt|truncated"):
        measure(tmp_path / "often.flac")


def test_many_packets_that_do_not_decode_are_counted(tmp_path: Path) -> None:
    """A format without a length of its own: only the count can tell."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 6 * RATE_HZ)).astype(np.float32)
    data = bytearray(encode(tmp_path / "a.aac", noise, "aac").read_bytes())
    whole = measure(tmp_path / "a.aac")
    starts = [at for at in range(len(data) - 8) if data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0]
    for at in starts[20::10]:
        data[at + 7 : at + 60] = b"\xff" * 53
    (tmp_path / "b.aac").write_bytes(data)
    assert whole.flags == ()
    with pytest.raises(AudioError, match=r"corrupt from 0:0\d: \d+ of \d+ packets"):
        measure(tmp_path / "b.aac")


def wav_header(
    channels: int = 1, rate_hz: int = 8000, bits: int = 16, data_bytes: int = 16_000, kind: int = 1
) -> bytes:
    step = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, rate_hz, (rate_hz * step) & 0xFFFFFFFF, step, bits)
    return (
        b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", data_bytes)
    )


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"these are the words of a song\n" * 50, "not audio|no audio"),
    "noise": (lambda: np.random.default_rng(3).bytes(50_000), "not audio|nothing in it decodes|no audio|corrupt"),
    "headeronly": (lambda: wav_header(data_bytes=0), "nothing in it decodes|not audio"),
    "rate": (lambda: wav_header(rate_hz=1_000_000_000) + bytes(16_000), "sample rate of 1000000000|not audio"),
    "channels": (lambda: wav_header(channels=4000) + bytes(160_000), "4000 channels|not audio|nothing|no audio"),
    "nochannels": (lambda: wav_header(channels=0) + bytes(16_000), "0 channels|not audio|nothing"),
    "length": (lambda: wav_header(data_bytes=0x7F000000) + bytes(16_000), "truncated at 0:01"),
    "nan": (lambda: wav_header(bits=32, kind=3) + np.full(4000, np.nan, "<f4").tobytes(), "not numbers"),
    "inf": (lambda: wav_header(bits=32, kind=3) + np.full(4000, np.inf, "<f4").tobytes(), "not numbers"),
    "scale": (lambda: wav_header(bits=32, kind=3) + np.full(4000, 20_000, "<f4").tobytes(), "times full scale"),
    "playlist": (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n", "playlist|not audio|cannot"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "no audio|not audio"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_say_why(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, why = BAD[kind]
    (tmp_path / "a.wav").write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match=why):
        measure(tmp_path / "a.wav")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
    assert capfd.readouterr() == ("", "")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(OSError, match=r"Is a directory|No such file"):
            probe(path)


@pytest.mark.parametrize("failure", [av.error.OSError(5, "Input/output error"), av.error.MemoryError(12, "no memory")])
@pytest.mark.parametrize("after", [0, 3])
def test_a_failure_of_the_machine_is_no_verdict_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, after: int
) -> None:
    from data_prep import ffmpeg

    path = encode(tmp_path / "a.mp3", tone(440, RATE_HZ, 2.0), "libmp3lame")
    real, packets = ffmpeg._Reader._decoded, iter(range(1000))

    def failing(self: ffmpeg._Reader, packet: Any) -> Any:
        if next(packets) == after:
            raise failure
        return real(self, packet)

    monkeypatch.setattr(ffmpeg._Reader, "_decoded", failing)
    with pytest.raises(type(failure)):
        read(path)


def test_a_stream_without_a_length_is_whole(tmp_path: Path) -> None:
    """What `ffmpeg -f wav - | …` writes: it cannot know the length, and says the most there can be."""
    (tmp_path / "a.wav").write_bytes(wav_header(data_bytes=0xFFFFFFFF) + bytes(16_000))
    assert measure(tmp_path / "a.wav").duration_sec == 1.0


def test_a_length_a_few_bytes_off_and_tags_at_the_end_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_header(data_bytes=16_036) + bytes(16_000))
    assert measure(tmp_path / "a.wav").flags == ()
    for name, codec in (("b.flac", "flac"), ("c.mp3", "libmp3lame")):
        path = encode(tmp_path / name, tone(440, RATE_HZ, 1.0), codec)
        path.write_bytes(path.read_bytes() + b"TAG" + b"Night Train".ljust(125, b"\0"))
        assert measure(path).duration_sec == 1.0


def test_source_is_learnt_on_the_way(tmp_path: Path) -> None:
    source = Source()
    path = encode(tmp_path / "a.mp3", tone(440, RATE_HZ, 1.0), "libmp3lame")
    list(stream(path, sample_rate_hz=16_000, channels=1, source=source))
    assert (source.sample_rate_hz, source.channels, source.duration_sec) == (RATE_HZ, 2, 1.0)
