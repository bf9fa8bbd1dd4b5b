"""What owners write is read as they write it, goes to the song it is about, and is accounted for."""

import json
import unicodedata
from pathlib import Path

import pytest
from test_scan import put

from data_prep.describe import SongAccount
from data_prep.metadata_table import read_table
from data_prep.report_words import own_words, warnings
from data_prep.scan import ScanResult, SongFile, scan

NFC, NFD = (unicodedata.normalize(form, "Café à la crème") for form in ("NFC", "NFD"))


def captions(folder: Path) -> dict[str, list[str]]:
    return {song.relative: song.own_captions for song in scan(folder).songs}


def said_of(folder: Path, table: str, name: str = "metadata.csv") -> dict[str, list[str]]:
    """Captions of a.wav and b.wav under one metadata file."""
    put(folder, "a.wav", "b.wav")
    (folder / name).write_text(table, "utf-8", newline="")
    return captions(folder)


@pytest.mark.parametrize(
    "table",
    [
        "file_name,text\na.wav,slow ballad, piano, sad\nb.wav,fast\n",
        "file_name, text\na.wav, slow ballad, piano, sad\nb.wav, fast\n",
        "file_name,Caption\na.wav,\"slow ballad, piano, sad\"\nb.wav,fast\n",
        "File Name;Prompt\r\na.wav;slow ballad, piano, sad\r\nb.wav;fast\r\n",
        "\ufefffilename\tdescription\na.wav\tslow ballad, piano, sad\nb.wav\tfast",
        "PATH|TAGS\n./a.wav|slow ballad, piano, sad\n.\\b.wav|fast\n",
        "text,file_name\nslow ballad, piano, sad,a.wav\nfast,b.wav\n",
        "file_name,text,bpm\na.wav,slow ballad, piano, sad,92\nb.wav,fast,180\n",
        "a.wav,slow ballad, piano, sad\nb.wav,fast\n",
        "a.wav;slow ballad, piano, sad\rb.wav;fast\r",
        "sep=;\nname;text\na;slow ballad, piano, sad\nb;fast\n",
        "\n\n\"file_name\" , \"text\"\n\"a.wav\", \"slow ballad, piano, sad\"\n\n\"b.wav\", \"fast\"\n,\n",
        "file_name,text\nA.WAV,\"slow ballad,\n piano, sad\"\nb.flac,fast\n",
        "audio_filepath,music_caption\n/home/me/data/a.wav,\"slow ballad, piano, sad\"\nC:\\data\\b.wav,fast\n",
        "file_name,aspect_list\na.wav,\"['slow ballad', 'piano', 'sad']\"\nb.wav,['fast']\n",
        "file_name,text\na.wav,slow ballad, piano, sad,,\nb.wav,fast,,,\n",
    ],
)  # fmt: skip
def test_tables_as_people_write_them(tmp_path: Path, table: str) -> None:
    found = {song: [text.rstrip(", ") for text in texts] for song, texts in said_of(tmp_path, table).items()}
    assert found == {"a.wav": ["slow ballad, piano, sad"], "b.wav": ["fast"]}
    assert not scan(tmp_path).rejected


@pytest.mark.parametrize(
    ("table", "a"),
    [
        ('file_name,text\na.wav,"slow ballad\nb.wav,fast\n', "slow ballad"),
        ('file_name,text\na.wav,"slow ballad\nb.wav,"fast"\n', "slow ballad"),
        ('file_name,text\na.wav,"slow, sad\nb.wav,fast\nb.wav,""\n', "slow, sad"),
        ('file_name,text,bpm\na.wav,"slow ballad,92\nb.wav,fast,180\n', "slow ballad"),
        ('text,file_name\n"slow ballad,a.wav\nfast,b.wav\n', "slow ballad"),
        ('file_name;text\na;"slow ballad\nb;"fast"\n', "slow ballad"),
    ],
)
def test_an_open_quote_swallows_nothing_and_is_said(tmp_path: Path, table: str, a: str) -> None:
    assert said_of(tmp_path, table) == {"a.wav": [a], "b.wav": ["fast"]}
    (rejection,) = scan(tmp_path).rejected
    assert rejection.where == "metadata.csv:2" and "a quote is opened and not closed" in rejection.why


@pytest.mark.parametrize(("a", "b"), [("a.wav", "b.wav"), ("a", "b")])
def test_a_quote_that_a_later_row_would_close_ends_with_its_line(tmp_path: Path, a: str, b: str) -> None:
    table = f'file_name,text\n{a},"slow ballad\n{b},fast\n{b},"\n'
    assert said_of(tmp_path, table) == {"a.wav": ["slow ballad"], "b.wav": ["fast"]}
    assert [rejection.where for rejection in scan(tmp_path).rejected] == ["metadata.csv:2", "metadata.csv:4"]


def test_all_captions_of_a_row_are_kept(tmp_path: Path) -> None:
    table = "file_name,text,Caption,long_description,prompt 2,tags,negative_prompt,text\na.wav,1,2,3,4,5,6,7\n"
    assert said_of(tmp_path, table)["a.wav"] == ["1", "2", "3", "4", "5", "7"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.wav", "text": "one", "captions": ["two", "three"]}'),
        ("METADATA.JSONL", '{"File Name": "a.wav", "captions": ["one", "two"], "Prompt": "three"}\r\n'),
        ("metadata.jsonl", '[{"path": "a.wav", "text": "one", "text": "two", "description": "three"}]'),
        ("captions.json", '{"a.wav": ["one", "two", "three"]}'),
        ("prompts.json", '{"a": {"caption": "one", "captions": ["two", "three"]}}'),
        ("metadata.json", '[{"audio": {"path": "a.wav", "bytes": null}, "captions": ["one", "two", "three"]}]'),
        ("Captions.CSV", 'file,captions\na.wav,"[""one"", ""two"", ""three""]"\n'),
        ("metadata.tsv", "file\tcaption\tcaption\tcaption\na.wav\tone\ttwo\tthree\n"),
    ],
)
def test_lists_of_captions(tmp_path: Path, name: str, content: str) -> None:
    assert said_of(tmp_path, content, name) == {"a.wav": ["one", "two", "three"], "b.wav": []}
    assert not scan(tmp_path).rejected


@pytest.mark.parametrize(
    "name",
    [
        "a.txt", "a.TXT", "A.txt", "a.wav.txt", "a.caption", "a.caption.txt", "a.captions.txt", "a.prompt.txt",
        "a.Prompt.TXT", "a_caption.txt", "a-prompt.txt", "a.wav.caption.txt", "a.description.txt", "a.tags.txt",
    ],
)  # fmt: skip
def test_names_of_sidecars(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_text("slow\n")
    assert captions(tmp_path) == {"a.wav": ["slow"], "b.wav": []}
    assert not scan(tmp_path).passed_over


def test_lyrics_are_no_caption_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path, "a.wav")
    (tmp_path / "a_lyrics.txt").write_text("la la la")
    (song,) = scan(tmp_path).songs
    assert song.own_captions == [] and [r.use for r in song.read] == ["not used: lyrics are not read"]


@pytest.mark.parametrize(
    "content",
    ['{"Caption": "slow", "Key": "Am"}', '"slow"', '["slow"]', '{"description": "slow", "moods": ["sad", "calm"]}'],
)
def test_json_sidecars(tmp_path: Path, content: str) -> None:
    put(tmp_path, "a.wav")
    (tmp_path / "a.JSON").write_text(content)
    assert captions(tmp_path) == {"a.wav": ["slow"]}


@pytest.mark.parametrize(("song", "written"), [(NFC, NFD), (NFD, NFC), (NFC, NFC.upper()), (NFD, NFD)])
def test_accents_in_one_character_or_two(tmp_path: Path, song: str, written: str) -> None:
    put(tmp_path, f"{song}/{song}.wav")
    (tmp_path / song / f"{written}.txt").write_text("sidecar")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{written}/{written}.wav,row\n", "utf-8")
    (tmp_path / song / "metadata.jsonl").write_text(json.dumps({"file_name": written, "text": "line"}))
    ((name, texts),) = captions(tmp_path).items()
    assert name == f"{song}/{song}.wav" and sorted(texts) == ["line", "row", "sidecar"]
    assert not scan(tmp_path).rejected


def test_songs_that_differ_in_case_alone_keep_their_own(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "A.wav", f"{NFC}.wav", f"{NFD}.wav", "B.wav")
    if len(list(tmp_path.iterdir())) < 5:
        pytest.skip("this file system takes these names for one")
    for name in ("a", "A", NFC, NFD, "b"):
        (tmp_path / f"{name}.Txt").write_text(f"of {name!a}")
    rows = [{"file_name": f"{name}.wav", "text": f"row {name!a}"} for name in ("a", "A", NFC, NFD, "b")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = captions(tmp_path)
    for name in ("a", "A", NFC, NFD):
        assert found[f"{name}.wav"] == [f"of {name!a}", f"row {name!a}"]
    assert found["B.wav"] == ["of 'b'", "row 'b'"] and not scan(tmp_path).rejected


def test_a_name_that_fits_two_songs_fits_none(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "a.mp3", "x/c.wav", "y/c.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na,one\na.wav,two\na.flac,three\n/data/c.wav,four\n")
    assert captions(tmp_path) == {"a.mp3": [], "a.wav": ["two"], "x/c.wav": [], "y/c.wav": []}
    assert {r.where[-1] for r in scan(tmp_path).rejected} == {"2", "4", "5"}


def test_two_paths_of_one_last_name_are_not_taken_for_one_song(tmp_path: Path) -> None:
    put(tmp_path, "01.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\ncd1/01.wav,one\ncd2/01.wav,two\n")
    assert captions(tmp_path) == {"01.wav": []} and len(scan(tmp_path).rejected) == 2


def test_what_a_song_does_not_use_is_accounted_for(tmp_path: Path) -> None:
    put(tmp_path, "a.wav")
    (tmp_path / "a.json").write_text('{"caption": ["x", 5], "genre": "rock", "live": true, "x": {"y": 1}}')
    (tmp_path / "metadata.csv").write_text("file_name,text,genre\na.wav,x,punk\n")
    found = scan(tmp_path)
    assert [(r.where, r.field, r.use) for r in found.songs[0].read] == [
        ("a.json", "caption", "caption"),
        ("a.json", "genre", ""),
        ("a.json", "live", "not used: neither text nor a number (bool)"),
        ("a.json", "x", "not used: neither text nor a number (dict)"),
        ("metadata.csv:2", "text", "not used: the same words again"),
        ("metadata.csv:2", "genre", "not used: genre was stated before"),
    ]
    assert [(r.where, r.why) for r in found.rejected] == [("a.json", "a caption must be text, got int")]


def test_words_beside_a_copy_go_to_the_song_that_is_kept() -> None:
    from data_prep.song_words import Reading

    first = SongFile(Path("a.wav"), "a.wav", ["one"], {"genre": "rock"}, [Reading("a.txt", "", "one", "caption")])
    readings = [Reading("b.json", "genre", "punk", ""), Reading("b.json", "bpm", "90", "")]
    both = first.with_words_of(
        SongFile(Path("b.wav"), "b.wav", ["two", "one"], {"genre": "punk", "bpm": "90"}, readings)
    )
    assert both.own_captions == ["one", "two"] and both.fields == {"genre": "rock", "bpm": "90"}
    assert [r.use.split(":")[0] for r in both.read] == ["caption", "not used", ""] and both.relative == "a.wav"


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("file_name,notes\na.wav,x\n", "its 1 row is in any caption: no column holds captions, such as text."),
        ("title_of,text\na.wav,x\n", "no column names the file, such as file_name; the columns are: title_of, text."),
        ("file_name,text\nc.wav,x\n", "nothing of its 1 row is in any caption: c.wav: no such file."),
        ("", "nothing of its 0 rows is in any caption: the file is empty."),
        ("file_name,text\na.wav,x\nc.wav,y\nd.wav,z\n", "2 of its 3 rows name no song here, the first: c.wav: "),
        ('file_name,text\na.wav,"x\nb.wav,y\n', "1 problem, the first: a quote is opened and not closed"),
    ],
)  # fmt: skip
def test_a_metadata_file_of_which_something_is_lost_is_loud(tmp_path: Path, table: str, line: str) -> None:
    said_of(tmp_path, table)
    found = scan(tmp_path)
    (said,) = warnings(found, [SongAccount(song.relative, song.read) for song in found.songs], 0)
    assert said.startswith("metadata.csv: ") and line in said


def test_what_is_read_is_counted_and_a_good_file_is_quiet(tmp_path: Path) -> None:
    said_of(tmp_path, "file_name,text\na.wav,x\n")
    (tmp_path / "b.txt").write_text("y")
    found = scan(tmp_path)
    accounts = [SongAccount(song.relative, song.read) for song in found.songs]
    assert not warnings(found, accounts, 0)
    assert own_words(accounts) == "captions for 2 of 2 songs (metadata.csv 1, sidecars 1)"
    assert own_words([]) == "captions for 0 of 0 songs" and not warnings(ScanResult([], []), [], 0)


def test_files_that_are_not_read_are_counted_by_kind(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", ".hidden/b.wav", ".c.wav", "cover.jpg", "x.jpg", "read me", content=b"RIFF\0\0\0\0WAVE")
    put(tmp_path, "readme.txt", "cover.PNG", "Makefile.txt", content=b"hi")
    (tmp_path / "plays.csv").write_text("a,b\n")
    found = scan(tmp_path)
    assert found.passed_over == {"hidden": 2, "txt": 2, "png": 1}
    assert [(r.what, r.where) for r in found.rejected] == [("table", "plays.csv")]


def test_many_open_quotes_cost_little() -> None:
    import time

    began = time.perf_counter()
    table = read_table("file_name,text\n" + 'x,"y\n' * 5000)
    assert len(table.rows) == 5000 and len(table.problems) == 5000
    assert time.perf_counter() - began < 20
