"""A melody and beats for a base that follows words alone: prepared, learnt, saved, and followed in `sample`."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.testing import assert_allclose
from training_fixtures import quick

from adapters import adapter_files
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.beat_grid import Beats, grid, read_beats, tracked
from data_prep.condition_sources.added import added_kinds
from data_prep.condition_sources.melody import MELODY, melody_rows
from data_prep.prepared import PreparedDataset
from finetune.cli import main
from finetune.train import train

RATE_HZ = 22_050
pytestmark = pytest.mark.usefixtures("prep_in_this_process")


def clicks(bpm: float, seconds: float) -> np.ndarray:
    """A tone of 440 Hz that begins anew on every beat."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * 440 * t) * np.exp(-12 * (t % (60 / bpm)))).astype(np.float32)


def test_a_grid_has_a_click_on_each_beat_and_its_place_in_between():
    found = grid(120.0, 4.0).features(200, 50.0)
    assert np.flatnonzero(found[:, 0]).tolist() == list(range(0, 200, 25))
    assert np.flatnonzero(found[:, 1]).tolist() == [0, 100]
    assert_allclose(found[0, 2:], [1, 0], atol=1e-6)
    assert_allclose(found[25:50, 2:], found[:25, 2:], atol=1e-4)
    assert_allclose(np.square(found[:, 2:]).sum(1), 1, atol=1e-5)


def test_where_no_beat_is_known_there_are_zeros():
    found = Beats(np.array([1.0, 1.5, 2.0]), np.array([True, False, False])).features(150, 50.0)
    assert not found[:50].any()
    assert found[50, :2].tolist() == [1, 1]
    assert not found[101:].any()


def test_beats_are_cut_and_go_on_in_their_tempo():
    beats = grid(60.0, 8.0)
    cut = beats.from_second(2.5)
    assert cut.at_sec[:3].tolist() == [-0.5, 0.5, 1.5]
    longer = cut.lasting(20.0)
    assert longer.at_sec[-1] >= 20
    assert_allclose(np.diff(longer.at_sec), 1.0)
    assert set(np.diff(np.flatnonzero(longer.downbeats))) == {4}
    assert beats.lasting(3.0) is beats


def test_the_tracker_finds_the_tempo_of_clicks_and_nothing_in_silence():
    found = tracked(clicks(100.0, 12.0))
    assert found is not None
    assert abs(found.tempo_bpm / 100 - 1) < 0.02
    assert tracked(np.zeros(RATE_HZ, np.float32)) is None


@pytest.mark.parametrize("text", ["", "1.0", "1 1\n0.5 2", "one\ntwo", "nan\n2", "0\n1e-9", "-1e12\n0"])
def test_a_table_of_beats_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "beats.txt"
    path.write_text(text)
    with pytest.raises(UserError, match="beats"):
        read_beats(path)


def test_a_table_of_beats_is_read(tmp_path):
    path = tmp_path / "beats.csv"
    path.write_text("# second, beat\n0.25, 1\n0.75, 2\n1.25, 1\n")
    found = read_beats(path)
    assert found.at_sec.tolist() == [0.25, 0.75, 1.25]
    assert found.downbeats.tolist() == [True, False, True]


def test_the_melody_rests_where_it_is_silent():
    kind = added_kinds(resolve_base("debug").spec)[MELODY]
    rate = kind.made_with.sample_rate_hz  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    t = torch.arange(4 * rate) / rate
    rows = melody_rows(0.3 * torch.sin(2 * torch.pi * 440 * t) * (t < 2), kind)
    sounding = len(rows) // 2 - len(rows) // 10
    assert (rows[:sounding].argmax(1) == 9).all()
    assert rows[:sounding].sum() == sounding
    assert not rows[-len(rows) // 4 :].any()


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for number, bpm in enumerate((100, 120, 140)):
        soundfile.write(folder / f"{number}.wav", clicks(float(bpm), 6.0), RATE_HZ)
        (folder / f"{number}.txt").write_text("clicks")
    return folder


@pytest.fixture(scope="module")
def adapter(songs, tmp_path_factory) -> Path:
    """Prepared and learnt by the command line."""
    data = tmp_path_factory.mktemp("data") / "data"
    words = ["--base", "debug", "--melody", "mix", "--beat", "mix", "--device", "cpu", "--workers", "1"]
    assert main(["prep", str(songs), str(data), *words, "--segment.max_sec", "3", "--segment.min_sec", "1"]) == 0
    dataset = PreparedDataset(data)
    for row in dataset.clips():
        for name, width in (("melody", 12), ("beat", 4)):
            values = dataset.condition(name, row.id)
            assert values is not None
            assert values.shape[0] >= row.n_frames
            assert values.shape[1] == width
    wanted = quick(steps=3, max_clip_sec=2.0, context={"size": 8, "lookahead_sec": 0.1})
    return train(data, tmp_path_factory.mktemp("run") / "run", wanted)


def test_the_adapter_holds_both(adapter):
    read = adapter_files.load(adapter)
    assert sorted(read.added) == ["beat", "melody"]
    assert all(module.out.weight.abs().max() > 0 for module in read.added.values())
    assert "melody" in (adapter / "README.md").read_text()


def sampled(adapter, out, *words) -> np.ndarray:
    line = ["sample", str(adapter), "clicks", "--device", "cpu", "--duration", "1.5", "--out", str(out), *words]
    assert main(line) == 0
    return soundfile.read(next(out.glob("*.wav")))[0]


def test_sample_follows_a_melody_and_a_tempo(adapter, songs, tmp_path, capsys):
    plain = sampled(adapter, tmp_path / "a")
    beats = sampled(adapter, tmp_path / "b", "--beat", "120")
    assert "beats: 120 a minute" in capsys.readouterr().out
    both = sampled(adapter, tmp_path / "c", "--beat", str(songs / "0.wav"), "--melody", str(songs / "1.wav"))
    said = capsys.readouterr().out
    assert "from 0.wav, downbeats unknown" in said
    assert "melody:" in said
    again = sampled(adapter, tmp_path / "d", "--beat", "120", "--context_guidance", "6")
    assert len({len(one) for one in (plain, beats, both, again)}) == 1
    assert not np.array_equal(plain, beats)
    assert not np.array_equal(beats, both)
    assert not np.array_equal(beats, again)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--beat", "1000"], "20 to 400"),
        (["--beat", "nowhere.wav"], "not there"),
        (["--beat", "120", "--from", "1"], "there is none"),
        (["--with", "0.wav"], "follows no context track"),
    ],
)
def test_what_cannot_be_followed_is_said(adapter, songs, capsys, monkeypatch, words, why):
    monkeypatch.chdir(songs)
    if words[0] == "--with":
        monkeypatch.delattr("adapters.sampler.Sampler.load")  # it is said before anything is loaded
    assert main(["sample", str(adapter), "x", "--device", "cpu", "--duration", "1", *words]) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_a_base_alone_keeps_no_beat_and_has_no_scale_for_it(tmp_path, capsys, monkeypatch):
    line = ["sample", "--base", "debug", "x", "--device", "cpu", "--duration", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.delattr("adapters.sampler.Sampler.load")  # it is said before anything is loaded
        assert main([*line, "--beat", "120"]) == 2
    assert "nothing here follows beats" in capsys.readouterr().err
    assert main([*line, "--context_guidance", "5"]) == 2
    assert "context_guidance is for an adapter" in " ".join(capsys.readouterr().err.split())
