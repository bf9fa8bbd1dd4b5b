"""The whole of prep on synthesised songs: what it writes, refuses and does again, and that kills cost nothing."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs.errors import UserError
from configs.listeners import ListenerSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from data_prep import clip_features, text_encoder, tracks
from data_prep import prepare as prepare_module
from data_prep.codec.transformers_codec import TransformersCodec
from data_prep.prepare import prepare
from data_prep.prepared import PreparedDataset
from data_prep.write_audio import write_audio

RATE_HZ = 16_000
LENGTHS = (("one.wav", 1, 8.0), ("two.flac", 2, 5.0), ("deep/three.wav", 3, 6.0))


def song(seed: int, seconds: float) -> np.ndarray:
    """A tune in stereo: random notes of half a second."""
    rng = np.random.default_rng(seed)
    time_sec = np.arange(RATE_HZ // 2) / RATE_HZ
    notes = 110 * 2 ** (rng.integers(0, 24, int(2 * seconds) + 1) / 12)
    tune = np.concatenate([np.sin(2 * np.pi * hz * time_sec) * np.exp(-3 * time_sec) for hz in notes])
    tune = tune[: int(seconds * RATE_HZ)] * 0.5
    return np.stack([tune, np.roll(tune, 10)]).astype(np.float32)


pytestmark = pytest.mark.usefixtures("prep_in_this_process")  # what is counted must be done here


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for name, seed, seconds in LENGTHS:
        write_audio(folder / name, song(seed, seconds), RATE_HZ)
    (folder / "two.txt").write_text("a tune of my own")
    return folder


@pytest.fixture(scope="module")
def settings(mono_base):
    return PrepSettings(
        base=str(mono_base),
        segment=SegmentSettings(max_sec=4.0, min_sec=2.0),
        captions=CaptionSettings(trigger="my style", variants=2, listeners=ListenerSettings(use=[])),
        workers=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def prepared(songs, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare(songs, out, settings)


def changed(settings: PrepSettings, **values) -> PrepSettings:
    return PrepSettings(**(settings.model_dump() | values))


def files_of(folder: Path) -> dict[str, str]:
    """Content of every file by name. Not of the report: OGG streams carry a random serial number."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts and path.name != "report.html"
    }


@pytest.fixture
def count_work(monkeypatch):
    """Counts of what is really computed, by stage."""
    counts: dict[str, int] = {}

    def counted(module, name, stage, size):
        real = getattr(module, name)

        def wrapper(*args, **kwargs):
            counts[stage] = counts.get(stage, 0) + size(*args)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapper)

    counted(tracks, "measure", "measure", lambda path: 1)
    counted(clip_features, "measure_features", "features", lambda *_: 1)
    counted(TransformersCodec, "encode", "codec", lambda self, clips: len(clips))
    counted(text_encoder.TextEncoder, "encode", "texts", lambda self, captions: len(captions))
    return counts


def test_the_dataset_says_what_the_songs_are(prepared, songs, mono_base):
    out, summary = prepared
    dataset = PreparedDataset(out)
    rows = dataset.clips()
    assert rows == summary.rows and not summary.rejected and not summary.unchanged
    assert {row.source for row in rows} == {"one.wav", "two.flac", "deep/three.wav"}
    for source, seconds in ((name, sec) for name, _, sec in LENGTHS):
        own = [row for row in rows if row.source == source]
        assert sum(row.duration_sec for row in own) == pytest.approx(seconds, abs=0.1)
        assert len({row.split for row in own}) == 1
        assert own[0].source_sha256 == hashlib.sha256((songs / source).read_bytes()).hexdigest()
    assert {row.split for row in rows} == {"train", "validation"}
    assert all("my style" in caption for row in rows for caption in row.captions)
    assert any("a tune of my own" in caption for row in rows if row.source == "two.flac" for caption in row.captions)
    assert dataset.info["codec"]["n_codebooks"] == 4 and dataset.info["base"]["id"] == str(mono_base)
    page = (out / "report.html").read_text()
    assert "<audio" in page and "everything above 16 kHz, left and right" in page
    assert f"woodshed codec report SONGS --codec {mono_base}" in page
    assert re.search(r"is \d+\.\d\d away\s+in mel distance, with an SI-SDR of -?\d+\.\d dB", page)


def test_tokens_are_those_of_the_clip_alone(prepared, songs, mono_base):
    import torch

    from data_prep.base_files import resolve_base
    from data_prep.codec.registry import load_base_codec
    from data_prep.decode import stream

    dataset = PreparedDataset(prepared[0])
    codec = load_base_codec(resolve_base(str(mono_base)))
    whole = np.concatenate(list(stream(songs / "one.wav", sample_rate_hz=32_000, channels=1)), axis=1)
    rows = [row for row in dataset.clips() if row.source == "one.wav"]
    for row in rows:
        start = round(row.start_sec * 32_000)
        audio = whole[:, start : start + round(row.duration_sec * 32_000)]
        np.testing.assert_array_equal(dataset.codes(row.id), codec.encode([torch.from_numpy(audio)])[0])
        assert row.n_frames == round(row.duration_sec * 50), "no frame of padding"


def test_again_does_nothing(prepared, songs, settings, count_work):
    out, first = prepared
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if ".cache" not in p.parts}
    again = prepare(songs, out, settings)
    assert again.unchanged and again.rows == first.rows and not count_work
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if ".cache" not in p.parts}


@pytest.mark.parametrize(
    ("values", "redone"),
    [
        ({"captions": {"trigger": "other words", "variants": 2}}, {"texts"}),
        ({"validation_fraction": 0.4}, set()),
        ({"segment": {"max_sec": 3.0, "min_sec": 2.0}}, {"features", "codec", "texts"}),
        ({"max_track_sec": 100.0}, {"measure"}),
    ],
)
def test_a_setting_redoes_only_what_depends_on_it(prepared, songs, settings, values, redone, count_work, tmp_path):
    out = shutil.copytree(prepared[0], tmp_path / "out")
    prepare(songs, out, changed(settings, **values))
    assert set(count_work) <= redone and redone - {"texts"} <= set(count_work)
    PreparedDataset(out)


def test_a_base_of_other_channels_redoes_what_it_hears(prepared, songs, settings, stereo_base, count_work, tmp_path):
    out = shutil.copytree(prepared[0], tmp_path / "out")
    summary = prepare(songs, out, changed(settings, base=str(stereo_base)))
    assert set(count_work) == {"codec", "features", "texts"}
    dataset = PreparedDataset(out)
    assert dataset.codes(summary.rows[0].id).shape[0] == 8 and dataset.info["codec"]["channels"] == 2
    back = prepare(songs, out, settings)
    assert not back.unchanged and set(count_work) == {"codec", "features", "texts"}
    assert files_of(out) == files_of(prepared[0])


def test_a_new_song_costs_that_song(prepared, songs, settings, count_work, tmp_path):
    more, out = shutil.copytree(songs, tmp_path / "songs"), shutil.copytree(prepared[0], tmp_path / "out")
    write_audio(more / "four.wav", song(4, 5), RATE_HZ)
    summary = prepare(more, out, settings)
    new = [row for row in summary.rows if row.source == "four.wav"]
    assert count_work["measure"] == 1 and count_work["codec"] == count_work["features"] == len(new) == 2


def test_the_song_folder_is_never_written_to(songs, settings, tmp_path):
    copy = shutil.copytree(songs, tmp_path / "songs")
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in copy.rglob("*")} | {"": files_of(copy)}
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        prepare(copy, tmp_path / "out", settings)
        assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in copy.rglob("*")} | {"": files_of(copy)} == before
    finally:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755)


def test_bad_input_is_listed_and_the_rest_goes_on(songs, settings, tmp_path):
    bad = shutil.copytree(songs, tmp_path / "songs")
    whole = (bad / "one.wav").read_bytes()
    (bad / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (bad / "empty.mp3").touch()
    (bad / "noise.ogg").write_bytes(random.Random(0).randbytes(5000))
    write_audio(bad / "silent.wav", np.zeros((1, 5 * RATE_HZ), np.float32), RATE_HZ)
    write_audio(bad / "blip.wav", song(5, 0.5), RATE_HZ)
    shutil.copy(bad / "one.wav", bad / "zz copy.wav")
    soundfile.write(bad / "zz same audio.flac", soundfile.read(bad / "one.wav", dtype="int32")[0], RATE_HZ, "PCM_24")
    shutil.copy(bad / "two.flac", bad / "wrong\nname ü.mp3")
    summary = prepare(bad, tmp_path / "out", settings)
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    why = {json.loads(line)["where"]: json.loads(line)["why"] for line in lines}
    assert len(lines) == len(summary.rejected) == 7
    assert "truncated" in why["truncated.wav"] and "empty" in why["empty.mp3"] and why["noise.ogg"]
    assert why["silent.wav"].startswith("silent") and why["blip.wav"].startswith("too short")
    assert why["zz copy.wav"].startswith("duplicate of one.wav") and why["wrong\nname ü.mp3"].startswith("duplicate of")
    twins = [row for row in summary.rows if row.source == "zz same audio.flac"]
    assert twins and all(row.flags == ["same_audio_as:one.wav"] for row in twins)
    assert {row.split for row in twins} == {row.split for row in summary.rows if row.source == "one.wav"}
    report = (tmp_path / "out" / "report.html").read_text()
    assert "truncated.wav" in report


def test_what_is_written_of_songs_is_accounted_for(songs, settings, tmp_path):
    told, out = tmp_path / "songs", tmp_path / "out"
    told.mkdir()
    shutil.copy(songs / "two.flac", told / "a.flac")
    shutil.copy(songs / "two.flac", told / "b.flac")
    shutil.copy(songs / "one.wav", told / "c.wav")
    (told / "b.caption.txt").write_text("words beside the copy, in Em")
    (told / "c.json").write_text('{"key": "H-Dur", "tempo": "fast", "energy": "<high>"}')
    (told / "metadata.csv").write_text("file_name,notes\nc.wav,lost\n")
    (told / "cover.jpg").touch()
    summary = prepare(told, out, settings)
    lines = [json.loads(line) for line in (out / "songs.jsonl").read_text().splitlines()]
    read = {line["source"]: {(r["where"], r["field"]): r["use"] for r in line["read"]} for line in lines}
    assert read["a.flac"] == {("b.caption.txt", ""): "caption"}
    assert all(caption.startswith("words beside the copy") for row in summary.rows if row.source == "a.flac"
               for caption in row.captions)  # fmt: skip
    assert "what you wrote for it goes there" in next(r.why for r in summary.rejected if r.where == "b.flac")
    assert read["c.wav"] == {
        ("c.json", "key"): "key",
        ("c.json", "tempo"): "not used: it states no single tempo from 20 to 400",
        ("c.json", "energy"): "not used: captions and tags have no place for it",
        ("metadata.csv:2", "notes"): "not used: captions and tags have no place for it",
    }
    assert next(row.tags for row in summary.rows if row.source == "c.wav") == {"key": "B major"}
    report = (out / "report.html").read_text()
    assert "metadata.csv: nothing of its 1 row is in any caption" in report and "&lt;high&gt;" in report
    assert "1 jpg" in report and "captions for 1 of 2 songs" in report
    (told / "b.caption.txt").rename(told / "a.txt")
    assert not prepare(told, out, settings).unchanged, "where a caption stood is part of the account"


def test_names_that_are_no_text_do_not_spoil_the_report(songs, settings, tmp_path):
    odd, name = tmp_path / "songs", os.fsdecode(b"caf\xe9")
    odd.mkdir()
    shutil.copy(songs / "two.flac", odd / f"{name}.flac")
    (odd / f"{name}.json").write_text("[]")
    (odd / f"{name} 2.mp3").touch()
    (odd / "metadata.jsonl").write_text(json.dumps({"file_name": "\ud800.wav"}))
    summary = prepare(odd, tmp_path / "out", settings)
    left_out = ["caf\\xe9 2.mp3", "caf\\xe9.json", "metadata.jsonl:1"]
    assert [r.where for r in summary.rejected] == left_out
    report = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert all(where in report for where in left_out) and "\\ud800.wav: no such file" in report
    assert {row.source for row in PreparedDataset(tmp_path / "out").clips()} == {"caf\\xe9.flac"}


def test_text_from_outside_is_escaped_in_the_report(songs, settings, tmp_path):
    tricky = tmp_path / "songs"
    tricky.mkdir()
    shutil.copy(songs / "one.wav", tricky / "<img src=x>.wav")
    (tricky / "<img src=x>.txt").write_text("<script>alert(1)</script> & more")
    prepare(tricky, tmp_path / "out", settings)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in report and "<img src=x>" not in report
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in report


def test_nothing_usable_says_why(settings, tmp_path):
    empty, bad = tmp_path / "empty", tmp_path / "bad"
    empty.mkdir()
    with pytest.raises(UserError, match="no recordings"):
        prepare(empty, tmp_path / "out1", settings)
    bad.mkdir()
    (bad / "a.wav").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"a\.wav: not audio"):
        prepare(bad, tmp_path / "out2", settings)


def test_folders_inside_each_other_are_refused(songs, settings):
    for out in (songs, songs / "out", songs.parent):
        with pytest.raises(UserError, match="neither inside the other"):
            prepare(songs, out, settings)
    assert not (songs / "out").exists()


def test_a_folder_with_something_else_is_refused(songs, settings, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else"):
        prepare(songs, tmp_path, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("tag", [None, ""])
def test_a_folder_with_finished_work_only_is_ours(songs, tmp_path, tag):
    from data_prep.folders import check_folders

    (tmp_path / ".cache" / "stems").mkdir(parents=True)
    if tag is not None:
        (tmp_path / ".cache" / "CACHEDIR.TAG").write_text(tag)
    check_folders(songs, tmp_path)
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UserError, match="something else"):
        check_folders(songs, tmp_path)


def test_damaged_cache_and_dataset_are_made_again(prepared, songs, settings, tmp_path):
    out = shutil.copytree(prepared[0], tmp_path / "out")
    for number, path in enumerate(
        sorted(p for p in (out / ".cache").rglob("*") if p.suffix in (".json", ".safetensors"))
    ):
        path.write_bytes(path.read_bytes()[: number % 50])
    next((out / "tokens").glob("*.arrow")).unlink()
    assert not prepare(songs, out, settings).unchanged
    assert files_of(out) == files_of(prepared[0])


def test_readers_see_all_or_nothing(prepared, songs, settings, tmp_path, monkeypatch):
    from data_prep import dataset_files

    out = shutil.copytree(prepared[0], tmp_path / "out")
    real, seen = Path.rename, []

    def watched(self, target):
        try:
            seen.append(len(PreparedDataset(out).clips()))
        except UserError as error:
            seen.append(error.what)
        return real(self, target)

    monkeypatch.setattr(dataset_files.Path, "rename", watched)
    prepare(songs, out, changed(settings, segment={"max_sec": 3.0, "min_sec": 2.0}))
    assert set(seen) == {"This dataset is not finished."}
    assert len(PreparedDataset(out).clips()) > len(PreparedDataset(prepared[0]).clips())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_moment_the_next_run_continues(prepared, songs, settings, tmp_path):
    """Kill −9 after growing amounts of finished work; what comes out in the end is what an undisturbed run makes."""
    out = tmp_path / "out"
    killed = 0
    for entries in (1, 3, 5, 8, 11, 13, 15, 17):
        child = started(songs, out, settings)
        gone = wait_for(lambda entries=entries, child=child: finished_work(out) >= entries or ended(child))
        assert gone, "the run hangs"
        if not ended(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
            with pytest.raises(UserError):
                PreparedDataset(out)
    assert killed >= 5
    prepare(songs, out, settings)
    assert files_of(out) == files_of(prepared[0])
    assert not list(out.rglob("*.part"))


def started(songs: Path, out: Path, settings: PrepSettings) -> int:
    """A child process that runs prep; forked, because a fresh one spends its time importing."""
    import torch

    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of the parent's pool are not there after a fork
        prepare(songs, out, settings)
        os._exit(0)
    return child


def wait_for(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def finished_work(out: Path) -> int:
    kinds = ("hashes", "tracks", "features", "tokens", "texts")
    return sum(len(list((out / ".cache" / kind).rglob("*.[js]*"))) for kind in kinds)


def test_a_second_run_on_the_same_folder_is_refused(prepared, songs, settings):
    from data_prep.lock import only_one

    with only_one(prepared[0] / ".cache"), pytest.raises(UserError, match=f"process {os.getpid()}"):
        prepare_module.prepare(songs, prepared[0], settings)
