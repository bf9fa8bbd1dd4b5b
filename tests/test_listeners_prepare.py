"""Listeners in prep: words kept with their source, the owner's first; heard once; edits read back at little cost."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.listeners import ListenerSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from data_prep import encode
from data_prep.caption_edits import read_edits, write_edits
from data_prep.listeners.listener import VOCALS_FOUND, Answer, Known
from data_prep.listeners.registry import LISTENERS, Entry
from data_prep.prepare import prepare
from data_prep.prepared import ClipRow, PreparedDataset
from data_prep.text_encoder import TextEncoder
from data_prep.write_audio import write_audio
from finetune.cli import main

RATE_HZ = 16_000


@dataclass
class Ear:
    """A listener of this test: says whether a clip is high or low, and keeps what it was given."""

    name: str = "ear"
    fingerprint: str = "ear 1"
    sample_rate_hz: int = 8_000
    batch_size: int = 2
    batches: list[list[tuple[int, Known]]] = field(default_factory=list)

    def listen(self, audio: Sequence[np.ndarray], known: Sequence[Known]) -> list[Answer]:
        self.batches.append([(len(clip), k) for clip, k in zip(audio, known, strict=True)])
        crossings = [int((np.diff(np.sign(clip)) != 0).sum()) / len(clip) for clip in audio]
        return [
            Answer(("high" if c > 0.1 else "low", "tune"), "Played by Jane Doe.", {"x": c}, (VOCALS_FOUND,))
            for c in crossings
        ]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    t = np.arange(5 * RATE_HZ) / RATE_HZ
    for name, hz in (("high.wav", 1760), ("low.wav", 110)):
        notes = hz * 2 ** (np.array([0, 4, 7, 12, 5, 9, 2, 7, 0, 4])[(2 * t).astype(int)] / 12)
        tune = 0.3 * np.sin(2 * np.pi * notes * t) * np.exp(-3 * (t % 0.5))
        write_audio(folder / name, tune[None].astype(np.float32), RATE_HZ)
    (folder / "low.txt").write_text("an instrumental tune of mine")
    return folder


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch, prep_in_this_process: None) -> Ear:
    listener = Ear()
    monkeypatch.setitem(LISTENERS, "ear", Entry(lambda *_: listener, lambda *_: listener.fingerprint))
    return listener


def settings(base: Path, *listeners: str, **captions: object) -> PrepSettings:
    return PrepSettings(
        base=str(base),
        segment=SegmentSettings(max_sec=2.5, min_sec=2.0),
        captions=CaptionSettings(trigger="my style", listeners=ListenerSettings(use=list(listeners)), **captions),  # pyright: ignore[reportArgumentType]
        device="cpu",
        workers=1,
    )


def test_words_are_heard_once_and_stored_with_their_source(songs: Path, mono_base: Path, ear: Ear, tmp_path: Path):
    prepare(songs, tmp_path / "out", settings(mono_base, "ear"))
    rows = PreparedDataset(tmp_path / "out").clips()
    assert len(rows) == 4 and [len(batch) for batch in ear.batches] == [2, 2], "in batches as large as it wants"
    assert {length for batch in ear.batches for length, _ in batch} == {20_000}, "2.5 s at its own rate"
    for row in rows:
        word = row.source.removesuffix(".wav")
        assert row.listeners == {
            "ear": {"words": [word, "tune"], "removed": ["Played by Jane Doe"], "flags": [VOCALS_FOUND]}
        }
        assert any(word in caption for caption in row.captions)
        assert not any("Jane" in caption for caption in row.captions)
    low = [row for row in rows if row.source == "low.wav"]
    assert all(row.captions[0].startswith("an instrumental tune of mine") for row in low), "the owner's words lead"
    assert all("tune, " not in c.removeprefix("an instrumental tune of mine, ") for row in low for c in row.captions)
    assert all(VOCALS_FOUND in row.flags for row in low), "the owner said instrumental"
    assert not any(VOCALS_FOUND in row.flags for row in rows if row.source == "high.wav")
    prepare(songs, tmp_path / "out", settings(mono_base, "ear", variants=2))
    assert len(ear.batches) == 2, "nothing is heard twice"


def test_a_run_that_was_stopped_goes_on(songs: Path, mono_base: Path, ear: Ear, tmp_path: Path, monkeypatch):
    real = ear.listen

    def stops(audio: Sequence[np.ndarray], known: Sequence[Known]) -> list[Answer]:
        if ear.batches:
            raise UserError("The GPU has too little memory.")
        return real(audio, known)

    monkeypatch.setattr(ear, "listen", stops)
    with pytest.raises(UserError, match="memory"):
        prepare(songs, tmp_path / "out", settings(mono_base, "ear"))
    monkeypatch.setattr(ear, "listen", real)
    prepare(songs, tmp_path / "out", settings(mono_base, "ear"))
    assert [len(batch) for batch in ear.batches] == [2, 2], "the first batch was kept"


def test_another_fingerprint_is_heard_anew_and_nobody_is_allowed(
    songs: Path, mono_base: Path, ear: Ear, tmp_path: Path
):
    prepare(songs, tmp_path / "out", settings(mono_base, "ear"))
    ear.fingerprint = "ear 2"
    prepare(songs, tmp_path / "out", settings(mono_base, "ear"))
    assert len(ear.batches) == 4
    prepare(songs, tmp_path / "out", settings(mono_base))
    assert all(not row.listeners for row in PreparedDataset(tmp_path / "out").clips())


def test_the_embedded_tagger_is_the_default(songs: Path, mono_base: Path, ear: Ear, tmp_path: Path):
    assert PrepSettings().captions.listeners.use == ["musicnn"] and "listeners" in PrepSettings().captions.sources
    prepare(songs, tmp_path / "out", settings(mono_base, "musicnn"))
    assert all(set(row.listeners) == {"musicnn"} for row in PreparedDataset(tmp_path / "out").clips())


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_edited_captions_come_back_and_only_text_is_encoded(
    songs: Path, mono_base: Path, ear: Ear, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    out, table = tmp_path / "out", tmp_path / f"mine.{suffix}"
    first = prepare(songs, out, settings(mono_base, "ear"))
    assert main(["captions", str(out), "--edit", str(table)]) == 0
    assert "--captions.edits" in capsys.readouterr().out.replace("\n", "")
    clip = first.rows[0].id
    text = table.read_text("utf-8")
    old = first.rows[0].captions[0]
    assert clip in text and old in text
    table.write_text(text.replace(old, "Ein Lied über ‚Regen‘, leise", 1), "utf-8")

    def refuse(*_: object) -> None:
        raise AssertionError("audio was worked on again")

    monkeypatch.setattr(encode.Codec, "encode", refuse)
    encoded: list[str] = []
    real = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, said: encoded.extend(said) or real(self, said))
    again = prepare(songs, out, settings(mono_base, "ear", edits=table))
    changed = next(row for row in again.rows if row.id == clip)
    assert changed.captions[0] == "Ein Lied über ‚Regen‘, leise, my style"
    assert sorted(encoded) == sorted({"Ein Lied über ‚Regen‘, leise", "Ein Lied über ‚Regen‘, leise, my style"})
    assert len(ear.batches) == 2 and [r.captions for r in again.rows[1:]] == [r.captions for r in first.rows[1:]]


def test_edited_captions_are_kept_by_a_run_that_does_not_name_them(
    songs: Path, mono_base: Path, ear: Ear, tmp_path: Path
):
    out, table = tmp_path / "out", tmp_path / "t.jsonl"
    clip = prepare(songs, out, settings(mono_base)).rows[0].id
    table.write_text(json.dumps({"clip": clip, "captions": ["my own words"]}))
    prepare(songs, out, settings(mono_base, edits=table))
    table.unlink()
    again = prepare(songs, out, settings(mono_base, variants=2))
    assert again.edits.kept and next(r.captions for r in again.rows if r.id == clip) == ["my own words, my style"]
    (songs / "low.wav").rename(tmp_path / "low.wav")
    (songs / "high.wav").rename(tmp_path / "high.wav")
    (tmp_path / "low.wav").rename(songs / "high.wav")
    others = prepare(songs, out, settings(mono_base, variants=2))
    assert others.edits.kept, "also where the songs are others, until the person wants none"
    anew = prepare(songs, out, settings(mono_base, edits=None))
    assert not anew.edits.captions and not (out / "caption_edits.jsonl").exists()
    assert "my own words, my style" not in {caption for r in anew.rows for caption in r.captions}


def row(clip: str, *captions: str, **values: object) -> ClipRow:
    fields = {"source": "a.wav", "source_sha256": clip, "start_sec": 0.0, "duration_sec": 1.0, "n_frames": 50}
    return ClipRow(id=clip, captions=list(captions), **{**fields, "stems": "mix", "split": "train", **values})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str):
    rows = [row("a1", 'a "quoted", text', "=1+1"), row("b2", "静かな曲"), row("c3", "'", "-x")]
    assert write_edits(tmp_path / f"t.{suffix}", rows) == 5
    found = read_edits(tmp_path / f"t.{suffix}")
    assert found.captions == {r.id: r.captions for r in rows} and found.unused(["a1", "b2", "c3"]) == []
    if suffix == "csv":
        cells = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text("utf-8-sig"))))
        assert not any(cell.startswith(("=", "-", "+", "@")) for line in cells for cell in line)
    with pytest.raises(UserError, match="there already"):
        write_edits(tmp_path / f"t.{suffix}", rows)


def test_tables_as_spreadsheets_save_them(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes('Caption;Clip;note\n"leise; schön";a1;x\n;b2;\n'.encode("utf-16"))
    found = read_edits(path)
    assert found.captions == {"a1": ["leise; schön"]}, "b2 has no caption left, and gets those that prep makes"
    lines = found.unused(["a1"])
    assert len(lines) == 1 and "t.csv, line 3: b2" in lines[0].where
    with pytest.raises(UserError, match="names no clip of these songs"):
        found.unused(["z"])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.csv", b"id,text\na,b\n", "columns id, text"),
        ("t.csv", b"clip,caption\n,lost words\n", "line 2 has a caption and names no clip"),
        ("t.csv", b"clip,caption\na," + b"x" * 1001 + b"\n", "line 2: too long"),
        ("t.csv", b"\xff\xff\xff", "UTF-8"),
        ("t.jsonl", b'{"clip": "a"}\n', "line 1 is not"),
        ("t.jsonl", b'{"clip": "a", "captions": "x"}\n', "captions a list"),
        ("t.jsonl", b'{"clip": "a", "captions": [3]}\n', "line 1: a caption must be text"),
        ("t.jsonl", b"[" * 100_000, "line 1"),
        ("none.csv", None, "No such file"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_by_line(tmp_path: Path, name: str, data: bytes | None, said: str):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_edits(tmp_path / name)
    assert said in caught.value.what and caught.value.where == str(tmp_path / name)


def test_lines_of_clips_that_are_gone_are_listed(songs: Path, mono_base: Path, ear: Ear, tmp_path: Path):
    out, table = tmp_path / "out", tmp_path / "t.jsonl"
    summary = prepare(songs, out, settings(mono_base))
    lines = [{"clip": summary.rows[0].id, "captions": ["kept"]}, {"clip": "gone", "captions": ["lost"]}]
    table.write_text("\n".join(map(json.dumps, lines)))
    again = prepare(songs, out, settings(mono_base, edits=table))
    assert [r.what for r in again.rejected] == ["caption"] and "line 2: gone" in again.rejected[0].where
    assert again.rows[0].captions == ["kept, my style"]
