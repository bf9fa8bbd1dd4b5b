"""Files that are not all there, or whose header leaves some of it out: told in plain words, never half a song."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_decode import encode

from data_prep.chunks import sound_is
from data_prep.decode import AudioError, probe, stream
from data_prep.measure import measure
from data_prep.ogg import links

RATE_HZ = 48_000
NOISE = np.random.default_rng(0).normal(0, 0.1, (2, 2 * RATE_HZ)).astype(np.float32)
CHUNKED = [
    ("a.rf64", "RF64", "PCM_16"), ("b.rf64", "RF64", "FLOAT"), ("a.w64", "W64", "PCM_16"), ("b.w64", "W64", "PCM_24"),
    ("a.caf", "CAF", "PCM_16"), ("b.caf", "CAF", "FLOAT"), ("c.caf", "CAF", "ALAC_16"), ("a.wav", "WAVEX", "PCM_24"),
    ("b.wav", "WAV", "FLOAT"), ("a.aiff", "AIFF", "PCM_16"), ("a.au", "AU", "PCM_16"), ("a.svx", "SVX", "PCM_16"),
    ("a.voc", "VOC", "PCM_16"), ("a.flac", "FLAC", "PCM_16"), ("a.ogg", "OGG", "VORBIS"), ("b.ogg", "OGG", "OPUS"),
]  # fmt: skip


def written(path: Path, kind: str, subtype: str) -> bytes:
    soundfile.write(path, NOISE[0] if kind == "SVX" else NOISE.T, RATE_HZ, format=kind, subtype=subtype)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(("name", "kind", "subtype"), CHUNKED)
def test_whole_files_are_and_cut_ones_are_not(tmp_path, name, kind, subtype, share):
    data = written(tmp_path / name, kind, subtype)
    assert measure(tmp_path / name).duration_sec == pytest.approx(2.0, abs=0.05)
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AudioError, match=r"truncated|cannot be opened: End of file"):
        measure(tmp_path / name)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
@pytest.mark.parametrize("name", ["a.avi", "a.caf", "a.w64"])
def test_cut_files_of_other_writers(tmp_path, name, codec):
    path = encode(tmp_path / name, NOISE, codec, RATE_HZ)
    assert measure(path).duration_sec == 2.0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="truncated"):
        measure(path)


def with_size(data: bytes, name: bytes, size: int, order: str = "<I", ahead: int = 4) -> bytes:
    """The same file with another size in the header of its sound."""
    at = data.index(name) + ahead
    return data[:at] + struct.pack(order, size) + data[at + struct.calcsize(order) :]


@pytest.mark.parametrize(
    ("kind", "subtype", "name", "order", "ahead", "counts_header"),
    [
        ("WAV", "PCM_16", b"data", "<I", 4, 0),
        ("WAV", "FLOAT", b"data", "<I", 4, 0),
        ("AIFF", "PCM_16", b"SSND", ">I", 4, 0),
        ("CAF", "PCM_16", b"data", ">q", 4, 0),
        ("W64", "PCM_16", b"data\xf3\xac", "<Q", 16, 24),
    ],
)
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_size_that_is_too_small_is_told(tmp_path, kind, subtype, name, order, ahead, counts_header, share):
    data = written(tmp_path / "a", kind, subtype)
    sound = NOISE.size * (4 if subtype == "FLOAT" else 2)
    (tmp_path / "a").write_bytes(with_size(data, name, int(sound * share) // 8 * 8 + counts_header, order, ahead))
    with pytest.raises(AudioError, match=r"damaged header: it counts 0:0[01] of sound, and \d.* more follow"):
        measure(tmp_path / "a")


def test_what_may_follow_the_sound(tmp_path):
    data = written(tmp_path / "a.wav", "WAV", "PCM_16")
    chunk = b"LIST" + struct.pack("<I", 30_000) + bytes(30_000)
    picture = b"id3 " + struct.pack("<I", 90_001) + np.random.default_rng(0).bytes(90_002)
    for more in (chunk, chunk + picture, bytes(100_000), b"TAG" + bytes(125), b"\x01" * 9000):
        (tmp_path / "a.wav").write_bytes(data + more)
        assert measure(tmp_path / "a.wav").duration_sec == 2.0


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFF0])
def test_writers_that_could_not_go_back(tmp_path, size):
    data = written(tmp_path / "a.wav", "WAV", "PCM_16")
    (tmp_path / "a.wav").write_bytes(with_size(data, b"data", size))
    assert measure(tmp_path / "a.wav").duration_sec == pytest.approx(2.0, abs=0.01)


def test_odd_headers_do_not_end_in_loops_or_crashes(tmp_path):
    rng = np.random.default_rng(1)
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("CAF", "PCM_16"),
        ("VOC", "PCM_16"),
    ):
        data = bytearray(written(tmp_path / "a", kind, subtype)[:20_000])
        for _ in range(150):
            broken = data.copy()
            for at in rng.integers(0, 200, 4):
                broken[at] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(broken)
            verdict, count = sound_is(tmp_path / "a")
            assert verdict in ("whole", "cut", "more") and count >= 0


def ogg(rate_hz: int, channels: int, subtype: str = "VORBIS") -> bytes:
    held = io.BytesIO()
    audio = 0.3 * np.sin(np.arange(rate_hz)[:, None] * [0.05, 0.06][:channels])
    soundfile.write(held, audio, rate_hz, format="OGG", subtype=subtype)
    return held.getvalue()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([ogg(44_100, 2), ogg(48_000, 2)], r"2 recordings .*\(44100 Hz, 2 channels to 48000 Hz, 2 channels"),
        ([ogg(44_100, 2), ogg(44_100, 1)], "44100 Hz, 2 channels to 44100 Hz, 1 channel"),
        ([ogg(44_100, 1), ogg(22_050, 2), ogg(48_000, 1)], "3 recordings"),
        ([ogg(48_000, 2, "OPUS"), ogg(48_000, 1, "OPUS")], "48000 Hz, 2 channels to 48000 Hz, 1 channel"),
        ([ogg(48_000, 2), ogg(48_000, 2, "OPUS")], "differ in their codec"),
    ],
)
def test_a_chain_that_changes_is_told_in_plain_words(tmp_path, parts, said):
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    assert len(links(tmp_path / "a.ogg")) == len(parts)
    with pytest.raises(AudioError, match=said):
        measure(tmp_path / "a.ogg")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chain_of_one_format_is_read_to_its_end(tmp_path, subtype):
    (tmp_path / "a.ogg").write_bytes(ogg(48_000, 2, subtype) * 3)
    assert measure(tmp_path / "a.ogg").duration_sec == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(("kind", "subtype"), [("MAT5", "PCM_16"), ("MPC2K", "PCM_16")])
def test_what_only_libsndfile_reads_is_read(tmp_path, kind, subtype):
    soundfile.write(tmp_path / "a", NOISE.T, RATE_HZ, format=kind, subtype=subtype)
    heard = np.concatenate(list(stream(tmp_path / "a")), axis=1)
    np.testing.assert_allclose(heard, NOISE, atol=2**-14)
    assert probe(tmp_path / "a").sample_rate_hz == RATE_HZ
    assert measure(tmp_path / "a").duration_sec == 2.0
    resampled = np.concatenate(list(stream(tmp_path / "a", sample_rate_hz=32_000, channels=1)), axis=1)
    assert resampled.shape == (1, 64_000)


def test_what_neither_reads_is_refused_as_before(tmp_path):
    (tmp_path / "a.ogg").write_bytes(b"OggS" + bytes(5000))
    with pytest.raises(AudioError):
        probe(tmp_path / "a.ogg")


def test_a_chain_that_ffmpeg_refuses_is_not_half_read_by_the_other(tmp_path, monkeypatch):
    from data_prep import ffmpeg

    def refuse(path):
        raise AudioError("not audio")

    monkeypatch.setattr(ffmpeg, "_open", refuse)
    (tmp_path / "one.ogg").write_bytes(ogg(44_100, 2))
    assert measure(tmp_path / "one.ogg").duration_sec == pytest.approx(1.0, abs=0.01)
    (tmp_path / "two.ogg").write_bytes(ogg(44_100, 2) * 2)
    with pytest.raises(AudioError, match="chain"):
        measure(tmp_path / "two.ogg")
