"""`woodshed captions`: the table, and what the counts find."""

from pathlib import Path

import pytest

from data_prep.caption_stats import caption_stats
from data_prep.flag_words import remark
from data_prep.prepared import ClipRow, PreparedDataset
from finetune.cli import main
from finetune.commands.captions import findings


def row(clip: str, *captions: str, **values: object) -> ClipRow:
    fields = {"source": f"{clip}.wav", "source_sha256": clip, "start_sec": 0.0, "duration_sec": 1.0, "n_frames": 50}
    return ClipRow(id=clip, captions=list(captions), **{**fields, "stems": "mix", "split": "train", **values})  # pyright: ignore[reportArgumentType]


def test_what_is_said_of_every_clip_is_found() -> None:
    rows = [
        row("a", "rock, guitar, 98 bpm, mine", "guitar, mine", key="A minor"),
        row("b", "guitar, rock, 120 bpm, mine", "rock, guitar, mine", key="A minor"),
    ]
    stats = caption_stats(rows, "mine")
    assert stats.always == ["guitar", "rock", "… bpm"], "the trigger itself is not among them"
    assert stats.in_every_caption == ["guitar"]
    assert stats.constant == {"key": "A minor"}, "that all are whole recordings is nothing to say"
    assert stats.phrases["rock"] == 1.0 and "mine" not in stats.phrases
    assert (stats.clips, stats.captions, stats.distinct, stats.alike) == (2, 4, 4, 0)


def test_what_varies_is_not() -> None:
    stats = caption_stats([row("a", "rock", key="A minor"), row("b", "jazz", key="C major", stems="drums")], "")
    assert stats.always == [] and stats.constant == {} and stats.phrases == {"rock": 0.5, "jazz": 0.5}


def test_one_clip_shows_no_pattern() -> None:
    stats = caption_stats([row("a", "rock, mine", key="A minor")], "mine")
    assert stats.always == [] and stats.constant == {}
    drums = [row("a", "rock", stems="drums"), row("b", "jazz", stems="drums")]
    assert caption_stats(drums, "").constant == {"stems": "drums"}


def test_songs_described_alike_are_counted() -> None:
    rows = [row("a", "rock, mine"), row("b", "Rock, mine"), row("c", "rock, jazz, mine")]
    assert caption_stats(rows, "mine").alike == 2
    same_song = [row("a", "rock"), row("a2", "rock", source_sha256="a"), row("c", "jazz")]
    assert caption_stats(same_song, "").alike == 0, "clips of one song may be alike"


def test_long_sentences_are_counted_by_word() -> None:
    stats = caption_stats([row("a", "A slow and gentle ballad for piano and strings.")], "")
    assert {"slow", "gentle", "piano", "strings"} <= set(stats.phrases) and "and" not in stats.phrases


def test_the_table_and_the_counts_are_printed(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["captions", str(tiny_data)]) == 0
    table = capsys.readouterr().out
    assert "listeners" in table and "captions" in table
    assert main(["captions", str(tiny_data), "--stats"]) == 0
    printed = capsys.readouterr().out
    rows = PreparedDataset(tiny_data).clips()
    assert f"{len(rows)} clips, {sum(len(r.captions) for r in rows)} captions" in printed and "of clips" in printed


def test_the_trigger_is_said_of_every_clip() -> None:
    varied = caption_stats([row("a", "rock, mine", "mine"), row("b", "jazz, mine")], "mine")
    every = "The trigger 'mine' is in every caption."
    assert findings(varied, "mine") == [every, "Nothing else is said of every clip."]
    lost = caption_stats([row("a", "rock, mine"), row("b", "rock")], "mine")
    assert findings(lost, "mine")[0] == "The trigger 'mine' is in 1 of 2 captions."
    assert findings(caption_stats([row("a", "rock"), row("b", "jazz")], ""), "") == ["Nothing is said of every clip."]
    assert findings(caption_stats([row("a", "rock")], ""), "") == []


def test_flags_are_sentences() -> None:
    for flag, words in [
        ("sounds_like:b.mp3", "sounds like b.mp3"),
        ("same_audio_as:a_b.wav", "same audio as a_b.wav"),
        ("bad_packets:1", "1 damaged packet"),
        ("cancels_in_mono:left_used", "the left side is used"),
        ("caption_cut", "is cut"),
        ("vocals_found", "a voice was found"),
        ("of_another_version", "of another version"),
    ]:
        assert words in remark(flag)


def test_no_dataset_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["captions", str(tmp_path)]) == 2
    assert "no prepared dataset" in capsys.readouterr().err
