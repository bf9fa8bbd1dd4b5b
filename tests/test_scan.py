import json
import os
from pathlib import Path

import pytest

from configs.errors import UserError
from data_prep.scan import scan


def put(folder: Path, *names: str, content: bytes = b"RIFF\0\0\0\0WAVE") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def songs(folder: Path) -> list[str]:
    return [song.relative for song in scan(folder).songs]


def reasons(folder: Path) -> dict[str, str]:
    return {r.where: r.why for r in scan(folder).rejected}


def test_order_and_nesting(tmp_path: Path) -> None:
    put(tmp_path, "b.wav", "a/z.mp3", "a/b/c.OGG", "é\nü.flac", "no ending")
    assert songs(tmp_path) == ["a/b/c.OGG", "a/z.mp3", "b.wav", "no ending", "é\nü.flac"]
    assert scan(tmp_path).songs[0].path == tmp_path / "a/b/c.OGG"


def test_what_lies_around_music_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, ".DS_Store", "._a.wav", ".git/x.wav", "__MACOSX/a.wav")
    put(tmp_path, "cover.jpg", "list.m3u", "song.lrc", "notes.mid", "readme.TXT", content=b"hello")
    found = scan(tmp_path)
    assert (found.songs, found.rejected) == ([], [])
    assert found.passed_over == {
        "hidden": 3, "__MACOSX": 1, "jpg": 1, "lrc": 1, "m3u": 1, "mid": 1, "txt": 1
    }  # fmt: skip


def test_content_counts_more_than_the_name(tmp_path: Path) -> None:
    put(tmp_path, "song.txt", "art.jpg", content=b"OggS\0\2\0\0\0\0\0\0")
    put(tmp_path, "unknown.xyz", content=b"who knows")
    assert songs(tmp_path) == ["art.jpg", "song.txt", "unknown.xyz"]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"caf\xe9.wav"))
    (song,) = scan(tmp_path).songs
    assert song.relative == "caf\\xe9.wav"
    assert json.loads(json.dumps(song.relative)) == song.relative and song.path.exists()


def test_names_too_long_for_a_file_beside_them(tmp_path: Path) -> None:
    put(tmp_path, "s" * 252 + ".wa", "a.wav")
    rows = [{"file_name": "x" * 300 + ".wav"}, {"file_name": "a.wav", "text": "ok"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = scan(tmp_path)
    assert [len(song.relative) for song in found.songs] == [5, 255] and found.songs[0].own_captions == ["ok"]
    (rejection,) = found.rejected
    assert rejection.where == "metadata.jsonl:1" and rejection.why.endswith("x.wav: no such file")
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        scan(tmp_path / ("y" * 300))


def test_every_name_in_what_was_left_out_can_be_written(tmp_path: Path) -> None:
    song = os.fsdecode(b"caf\xe9")
    put(tmp_path, f"{song}.wav", f"{song}/b.wav")
    (tmp_path / f"{song}.json").write_text("[]")
    (tmp_path / f"{song}/b.txt").write_bytes(b"\xff")
    names = ["\ud800.wav", "\udce9.wav", f"{song}.wav"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": n, "text": n[:3]}) for n in names))
    found = scan(tmp_path)
    assert {r.where for r in found.rejected} == {
        "caf\\xe9.json", "caf\\xe9/b.txt", "metadata.jsonl:1", "metadata.jsonl:2"
    }  # fmt: skip
    assert all((r.where + r.why).encode() for r in found.rejected)
    assert [song.own_captions for song in found.songs] == [["caf"], []]


def test_link_loops_and_dead_ends(tmp_path: Path) -> None:
    put(tmp_path, "a/one.wav")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "z").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe.wav")
    assert songs(tmp_path) == ["a/one.wav"]
    found = reasons(tmp_path)
    assert found["a/up"] == "a link back to a folder it lies in"
    assert found["z"] == "a link to a folder read before"
    assert "cannot be reached" in found["self"] and "cannot be reached" in found["gone.wav"]
    assert "neither a file nor a folder" in found["pipe.wav"]


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may read everything, so the system's answer is put in its mouth."""
    put(tmp_path, "a/one.wav", "locked/two.wav")
    real = Path.iterdir

    def iterdir(self: Path):
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert songs(tmp_path) == ["a/one.wav"]
    assert reasons(tmp_path) == {"locked": "cannot be read: Permission denied"}


def test_sidecars(tmp_path: Path) -> None:
    put(tmp_path, "s.wav", "t.mp3")
    (tmp_path / "s.txt").write_text("slow  ballad,\npiano\n", "utf-8-sig")
    fields = {
        "caption": "my words",
        "Genre": "Blues",
        "bpm": 92,
        "instruments": ["piano", "bass"],
        "live": True,
        "x": {},
    }
    (tmp_path / "s.json").write_text(json.dumps(fields))
    (tmp_path / "t.mp3.txt").write_text("fast", "utf-16")
    (tmp_path / "t.txt").write_text("   \n")
    first, second = scan(tmp_path).songs
    assert first.own_captions == ["slow ballad, piano", "my words"]
    assert first.fields == {"genre": "Blues", "bpm": "92", "instruments": "piano, bass"}
    assert second.own_captions == ["fast"] and not scan(tmp_path).rejected


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("s.txt", b"word " * 300, "too long for a caption"),
        ("s.txt", b"x" * 70_000, "larger than 64 KB"),
        ("s.txt", b"caf\xe9", "not UTF-8"),
        ("s.json", b"{", "not valid JSON"),
        ("s.json", b"[1]", "expected an object"),
        ("s.json", b"[" * 60_000, "JSON"),
        ("s.json", b'{"caption": 7}', "must be text"),
        ("s.json", b'{"caption": "a \\ud800"}', "half a character"),
        ("s.json", b'{"genre": ["a", "\\udfff"]}', "half a character"),
        ("s.json", b'{"\\ud800": "a"}', "half a character"),
        ("s.json", json.dumps({str(i): "x" for i in range(100)}).encode(), "100 fields"),
        ("s.json", json.dumps({"genre": "x" * 600}).encode(), "too long"),
    ],
)
def test_unusable_sidecars_are_named_and_the_song_kept(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    put(tmp_path, "s.wav")
    (tmp_path / name).write_bytes(content)
    assert songs(tmp_path) == ["s.wav"]
    assert why in reasons(tmp_path)[name]


def test_metadata_jsonl(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "sub/b.wav", "sub/c.wav")
    rows = [
        {"file_name": "a.wav", "text": "one", "genre": "rock"},
        {"file_name": "./sub/x/../b.wav", "caption": "two"},
        {"file_name": "a.wav", "text": "another"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "a.json").write_text('{"genre": "punk"}')
    found = scan(tmp_path)
    assert [s.own_captions for s in found.songs] == [["one", "another"], ["two"], []]
    assert found.songs[0].fields == {"genre": "punk"} and not found.rejected


def test_metadata_csv_in_a_folder_below(tmp_path: Path) -> None:
    put(tmp_path, "d/a, b.wav", "d/e/c.wav")
    (tmp_path / "d/metadata.csv").write_text(
        'file_name,text,bpm\n"a, b.wav","first,\nsecond",\ne\\c.wav,third,90\n', "utf-8-sig"
    )
    first, second = scan(tmp_path).songs
    assert first.own_captions == ["first, second"] and first.fields == {}
    assert second.own_captions == ["third"] and second.fields == {"bpm": "90"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"file_name": "../secret.wav"}', "outside its folder"),
        ('{"file_name": "sub/../../secret.wav"}', "outside its folder"),
        ('{"file_name": "/etc/passwd"}', "outside its folder"),
        ('{"file_name": "C:\\\\x.wav"}', "outside its folder"),
        ('{"file_name": "none.wav"}', "no such file"),
        ('{"file_name": "cover.jpg"}', "not audio"),
        ('{"text": "x"}', "no file_name"),
        ('{"file_name": 3}', "no file_name"),
        ('{"file_name": "\\ud83d.wav"}', "ud83d.wav: no such file"),
        ('{"file_name": "a.wav", "text": "\\ud83d"}', "half a character"),
        ("{oops", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"file_name": "a.wav", "text": 5}', "must be text"),
    ],
)
def test_metadata_rows_that_cannot_be_used(tmp_path: Path, row: str, why: str) -> None:
    put(tmp_path / "in", "a.wav", "cover.jpg", content=b"x")
    put(tmp_path, "secret.wav")
    (tmp_path / "in/metadata.jsonl").write_text('{"file_name": "a.wav", "text": "ok"}\n' + row)
    found = scan(tmp_path / "in")
    assert [s.own_captions for s in found.songs] == [["ok"]]
    (rejection,) = found.rejected
    assert rejection.where == "metadata.jsonl:2" and why in rejection.why


@pytest.mark.parametrize("content", [b"\xff\xfa\x80", b'file_name,text\n"' + b"x" * 140_000])
def test_metadata_files_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_bytes(content)
    (where,) = reasons(tmp_path)
    assert songs(tmp_path) == ["a.wav"] and where.startswith("metadata.csv")


def test_folders_that_are_none(tmp_path: Path) -> None:
    put(tmp_path, "a.wav")
    with pytest.raises(UserError, match="no such folder"):
        scan(tmp_path / "none")
    with pytest.raises(UserError, match="folder of songs is wanted"):
        scan(tmp_path / "a.wav")


def test_nothing_is_written(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b/c.wav", "s.txt")
    before = {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.rglob("*")]}
    scan(tmp_path)
    assert {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.rglob("*")]} == before
