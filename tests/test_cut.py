"""What becomes a clip: nothing that cannot be heard, no stem that is only what leaked into it."""

from pathlib import Path

import numpy as np
import pytest

from configs.prep import SegmentSettings
from data_prep.base_files import resolve_base
from data_prep.clips import Version
from data_prep.cut import cut_clips, is_bleed, with_music
from data_prep.fold_down import FoldDown
from data_prep.measure import TrackScan
from data_prep.scan import SongFile
from data_prep.segment import Segment
from data_prep.tracks import Track

WINDOW_SEC = 0.05
SETTINGS = SegmentSettings(max_sec=10, min_sec=5)


@pytest.fixture(scope="module")
def files(mono_base):
    return resolve_base(str(mono_base))


def scan(levels_db: list[float], **more) -> TrackScan:
    return TrackScan(len(levels_db) * WINDOW_SEC, 44_100, 2, "", WINDOW_SEC, tuple(levels_db), 1.0, 0.0, **more)


def version(stem: list[float], mix: list[float]) -> Version:
    track = Track(SongFile(Path("a.wav"), "a.wav"), "sha", scan(mix))
    return Version(track, "vocals", Path("v.wav"), scan(stem), "key")


LOUD = [-15.0] * 400
CASES = {
    "20 dB down": ([-35.5] * 400, True),
    "25 dB down, the transients of others nearer": ([-30.0 if i % 25 == 0 else -42.0 for i in range(400)], True),
    "19 dB down": ([-34.0] * 400, False),
    "one phrase in twenty seconds": ([-18.0] * 40 + [-60.0] * 360, False),
    "as loud as the mix": (LOUD, False),
}


@pytest.mark.parametrize("case", CASES)
def test_bleed_is_told_from_a_quiet_part(case):
    stem, wanted = CASES[case]
    assert is_bleed(version(stem, LOUD), Segment(0.0, 20.0), 2) is wanted


def test_quiet_music_is_judged_against_itself():
    assert not is_bleed(version([-45.0] * 400, [-40.0] * 400), Segment(0.0, 20.0), 2)


def test_bleed_is_left_out_and_said(files):
    part = version([-20.0] * 400 + [-40.0] * 400, [-15.0] * 800)
    clips, rejected = cut_clips([part], SETTINGS, files)
    assert [clip.segment.start_sec for clip in clips] == [0.0, 10.0]
    assert [(r.what, r.where) for r in rejected] == [("stems vocals", "a.wav")]
    assert "2 of 4 clips are bleed: 20 dB or more below the recording (seconds 20-30, 30-40)" in rejected[0].why
    clips, rejected = cut_clips([version([-40.0] * 400, LOUD)], SETTINGS, files)
    assert not clips and rejected[0].why.startswith("only bleed from the other instruments")


def test_the_recording_itself_is_never_bleed(files):
    track = Track(SongFile(Path("a.wav"), "a.wav"), "sha", scan([-45.0] * 400))
    clips, rejected = cut_clips([Version(track, "mix", Path("a.wav"), track.scan, "k")], SETTINGS, files)
    assert len(clips) == 2 and not rejected


def test_a_mono_codec_is_told_silent_by_what_it_gets(files):
    silent = scan(LOUD, mono_levels_db=(-120.0,) * 400, fold=FoldDown(mono="mean"))
    kept, rejected = with_music([Track(SongFile(Path("a.wav"), "a.wav"), "sha", silent)], SETTINGS, files)
    assert not kept and rejected[0].why.startswith("silent")


def test_tracks_without_a_clip_are_left_before_separation(files):
    tracks = [
        Track(SongFile(Path(f"{name}.wav"), f"{name}.wav"), name, scan(levels))
        for name, levels in (("one sample", [-3.0]), ("silent", [-90.0] * 400), ("music", LOUD))
    ]
    kept, rejected = with_music(tracks, SETTINGS, files)
    assert [track.source_sha256 for track in kept] == ["music"]
    assert [r.why.partition(":")[0] for r in rejected] == ["too short", "silent"]


def test_a_file_of_one_sample_is_no_end_of_separation(tmp_path):
    import soundfile

    from data_prep.decode import AudioError, stream
    from data_prep.separate import _loudness

    soundfile.write(tmp_path / "a.wav", np.array([[0.5, 0.5]]), 96_000)
    with pytest.raises(AudioError, match="too short to separate"):
        _loudness(block[:, :0] for block in stream(tmp_path / "a.wav", channels=2))


def test_cancelling_sides_do_not_blow_up_the_separators_input():
    from data_prep.separate import _loudness

    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    assert _loudness(iter([np.stack([wave, -wave])])).std == pytest.approx(0.1, rel=0.05)
