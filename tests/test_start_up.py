"""What a command asks before it imports torch, how long it waits for a network, and what its first words are."""

import os
import subprocess
import sys
import time
from pathlib import Path
from socket import create_server

import numpy as np
import pytest
from adapter_fixtures import write_adapter

from configs.errors import UserError
from data_prep import hub_reach
from data_prep.base_files import resolve_base
from data_prep.cache import Cache
from data_prep.prepared import ClipRow
from data_prep.scan import scan
from data_prep.stems import check_published, parse_selection
from data_prep.tracks import measure_tracks
from data_prep.write_audio import write_audio
from finetune.cli import main, prepare_for_torch
from finetune.commands.prep import held_out_words

ROOT = Path(__file__).parent.parent
MISTAKES = {
    "inspect": ["inspect", "nowhere"],
    "merge": ["merge", "nowhere", "out"],
    "blend": ["blend", "nowhere", "--out", "out"],
    "convert": ["convert", "nowhere", "--to", "kohya", "--out", "out"],
    "bundle": ["bundle", "nowhere", "out"],
    "push": ["push", "nowhere", "ada/blues"],
    "pull": ["pull", "ada/blues", str(ROOT)],
    "prep": ["prep", "nowhere", "out"],
    "train": ["train", "nowhere", "out"],
    "live": ["live", "nowhere"],
    "live, no base": ["live"],
    "sample": ["sample", "nowhere", "x"],
    "sample, no prompt": ["sample", "--base", "debug"],
    "sample, no player's flags": ["sample", "--base", "debug", "x", "--loop", "--play"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found_without_torch(name: str, tmp_path: Path) -> None:
    code = "import sys; from finetune.cli import main; code = main(%r); "
    code = code % MISTAKES[name] + "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    modules = done.stderr.split()
    assert done.returncode == 2 and "error:" in done.stderr
    assert not {"torch", "transformers", "peft", "librosa", "datasets"} & set(modules)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("set_by_person", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_told_otherwise(set_by_person: str | None) -> None:
    code = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Watch())
from finetune.cli import main, prepare_for_torch
main(["sample", "--base", "debug", "x"])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_WAIT_POLICY", None)
    if set_by_person:
        environment["OMP_WAIT_POLICY"] = set_by_person
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == (set_by_person or "PASSIVE")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "x"}, {"PYTORCH_CUDA_ALLOC_CONF": "x"}),
    ],
)
def test_the_allocator_grows_its_segments_unless_told_otherwise(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    environment = dict(given)
    prepare_for_torch(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", **expected}
    monkeypatch.setattr(sys, "platform", "win32")  # where it is not supported, and warns
    environment = dict(given)
    prepare_for_torch(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", **given}


def test_the_hub_is_asked_once_and_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that accepts and never answers: the worst kind of offline."""
    from huggingface_hub import constants

    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_reach, "WAIT_SEC", 0.3)
        monkeypatch.setattr(hub_reach.hub_answers, "__defaults__", (0.3,))
        begun = time.monotonic()
        with pytest.raises(UserError, match="hub cannot be reached") as caught:
            resolve_base("facebook/musicgen-small")
        assert time.monotonic() - begun < 5 and "--base starter" in caught.value.fix
        assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("text", "model", "known"),
    [
        ("off", "htdemucs", False),
        ("guitar", "htdemucs", False),
        ("guitar", "htdemucs_6s", True),
        ("vocal", "htdemucs_ft", False),
        ("drums+bass", "htdemucs", True),
        ("off", "own/", True),
    ],
)
def test_stems_are_checked_by_name(text: str, model: str, known: bool) -> None:
    if known:
        check_published([parse_selection(text)], model)
    else:
        with pytest.raises(UserError, match="there is no stem"):
            check_published([parse_selection(text)], model)


def test_stems_off_is_told_before_anything_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audio(tmp_path / "songs" / "a.wav", np.zeros((1, 32_000), np.float32), 32_000)
    words = ["prep", str(tmp_path / "songs"), str(tmp_path / "out"), "--base", "debug", "--stems", "off"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "there is no stem off" in said and "read files" not in said


def row(source: str, split: str, seconds: float) -> ClipRow:
    return ClipRow(source, source, "0" * 64, 0.0, seconds, 50, "mix", split, ["x"])


def test_why_more_is_held_out_than_was_asked_for() -> None:
    rows = [row(f"{n}.wav", "train", 10.0) for n in range(5)] + [row("v.wav", "validation", 10.0)]
    assert held_out_words(rows, 0.1) == (
        ", of these 0.2 held out for validation (17%: 1 whole track, never parts of one, where 10% was asked for)"
    )
    rows = [row(f"{n}.wav", "train", 10.0) for n in range(9)] + [row("v.wav", "validation", 10.0)]
    assert "asked for" not in held_out_words(rows, 0.1) and "10%" in held_out_words(rows, 0.1)
    assert "none held out" in held_out_words(rows[:3], 0.1)


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    """Tag editors can set the time of change back."""
    song = tmp_path / "songs" / "a.wav"
    write_audio(song, np.full((1, 64_000), 0.1, np.float32), 32_000, {"title": "one"})
    cache = Cache(tmp_path / "cache")

    def digest() -> str:
        return measure_tracks(scan(tmp_path / "songs").songs, cache, max_track_sec=99.0, workers=1)[0][0].source_sha256

    first, status = digest(), song.stat()
    song.write_bytes(song.read_bytes().replace(b"one", b"two"))
    os.utime(song, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert song.stat().st_size == status.st_size and song.stat().st_mtime_ns == status.st_mtime_ns
    assert digest() != first


def told(folder: Path, base: Path, id: str):
    from adapters import adapter_files

    write_adapter(folder, base)
    loaded = adapter_files.load(folder)
    assert loaded.woodshed is not None
    moved = loaded.woodshed.base.model_copy(update={"id": id})
    described = loaded.woodshed.model_copy(update={"base": moved, "license": "mit"})
    return adapter_files.save(folder, loaded.updates, described, overwrite=True)


def test_a_card_says_where_the_starter_comes_from(mono_base: Path, tmp_path: Path, capsys) -> None:
    folder = told(tmp_path / "a", mono_base, "starter")
    card = (folder / "README.md").read_text()
    assert "comes with Woodshed" in card and 'resolve_base("starter")' in card and "](#)" not in card
    assert "base_model:" not in card and "huggingface.co/starter" not in card
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    assert main(["push", str(folder), "ada/blues"]) == 0
    assert "add --yes" in capsys.readouterr().out


@pytest.mark.parametrize(("id", "why"), [("debug", "random model"), ("my-base", "folder that only you have")])
def test_push_says_why_it_refuses(mono_base: Path, tmp_path: Path, capsys, id: str, why: str) -> None:
    folder = told(tmp_path / "a", mono_base, id)
    assert main(["push", str(folder), "ada/blues"]) == 2
    said = capsys.readouterr().err
    assert why in said and "woodshed bundle" in said
    assert "not on the hub" in (folder / "README.md").read_text()
