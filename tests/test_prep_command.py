"""`woodshed prep` as a person types it: files appear, a table says what comes next, mistakes end in plain words."""

import numpy as np

from data_prep.prepared import PreparedDataset
from data_prep.write_audio import write_audio
from finetune.cli import main


def test_help_shows_examples_and_settings(capsys):
    assert main(["prep", "--help"]) == 0
    said = capsys.readouterr().out
    assert "woodshed prep my_songs/ data/mine" in said and "--segment.max_sec" in said


def test_songs_become_a_dataset(tmp_path, capsys):
    time_sec = np.arange(8 * 22_050) / 22_050
    for name, hz in (("a", 220.0), ("b", 330.0)):
        audio = 0.3 * np.sin(2 * np.pi * hz * time_sec)[None].astype(np.float32)
        write_audio(tmp_path / "songs" / f"{name}.wav", audio, 22_050)
    out = tmp_path / "my data"
    (tmp_path / "songs" / "a.caption.txt").write_text("slow")
    (tmp_path / "songs" / "metadata.csv").write_text("file_name,notes\na.wav,lost\n")
    (tmp_path / "songs" / ".hidden").mkdir()
    words = [str(tmp_path / "songs"), str(out), "--base", "debug", "--trigger", " my  style ", "--workers", "1"]
    assert main(["prep", *words]) == 0
    said = capsys.readouterr()
    assert "woodshed train" in said.out and "--base debug" in said.out and f"'{out}'" in said.out
    flat = " ".join(said.out.split())
    assert "warning: metadata.csv: nothing of its 1 row is in any caption: no column holds captions" in flat
    assert "captions for 1 of 2 songs (sidecars 1)" in flat and "passed over 1 hidden" in flat
    stages = [line.split(":")[0] for line in said.err.splitlines()]
    assert stages == [
        "read files",
        "measure",
        "listen to tracks",
        "listen",
        "musicnn listens",
        "codec tokens",
        "text states",
    ]
    rows = PreparedDataset(out).clips()
    assert len(rows) == 2 and all("my style" in caption for row in rows for caption in row.captions)


def test_no_stems_at_all_are_refused_as_such(tmp_path, capsys):
    (tmp_path / "songs").mkdir()
    assert main(["prep", str(tmp_path / "songs"), str(tmp_path / "out"), "--base", "debug", "--stems", ""]) == 2
    said = capsys.readouterr().err
    assert "--stems" in said and "name at least one version" in said and "recordings" not in said


def test_a_mistake_ends_in_plain_words(tmp_path, capsys):
    assert main(["prep", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--base", "debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "nowhere" in said and not (tmp_path / "out").exists()
