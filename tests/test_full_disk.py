"""Every command that writes, on a disk that is full or read-only: a sentence, code 2, nothing lost."""

import json
from collections.abc import Callable
from pathlib import Path

import hub_stand_in
import numpy as np
import pytest
from adapter_fixtures import write_adapter
from safetensors.torch import load_file
from small_disks import leave_free, read_only, small_disk, tree

from adapters.convert.run import convert
from adapters.merge import merge
from data_prep.base_files import resolve_base
from data_prep.write_audio import write_audio
from finetune.checkpoint import all_steps
from finetune.cli import main

ROOM_KIB = (0, 4, 12, 28, 60, 120, 200, 320)
"""Free on the disk: a command stops in another place each time, or has enough."""
Made = dict[str, Path]
Words = Callable[[Made, Path], list[str]]


@pytest.fixture(scope="module")
def made(mono_base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What commands read, on a disk with room."""
    folder = tmp_path_factory.mktemp("made")
    time_sec = np.arange(6 * 32_000) / 32_000
    for name, hz in (("a", 220.0), ("b", 330.0), ("c", 440.0)):
        audio = 0.3 * np.sin(2 * np.pi * hz * time_sec)[None].astype(np.float32)
        write_audio(folder / "songs" / f"{name}.wav", audio, 32_000)
    adapter = write_adapter(folder / "blues", mono_base, rank=16)
    merge(resolve_base(str(mono_base)), [(_loaded(adapter), 1.0)], folder / "tuned")
    convert(folder / "tuned", "audiocraft", folder / "theirs")
    assert main(["bundle", str(adapter), str(folder / "blues.zip")]) == 0
    return {
        "base": mono_base,
        "data": tiny_data,
        "songs": folder / "songs",
        "adapter": adapter,
        "tuned": folder / "tuned",
        "theirs": folder / "theirs",
        "bundle": folder / "blues.zip",
    }


def _loaded(folder: Path):
    from adapters.adapter_files import load

    return load(folder)


COMMANDS: dict[str, Words] = {
    "merge": lambda m, out: ["merge", f"{m['adapter']}", f"{out}", "--base", f"{m['base']}"],
    "blend": lambda m, out: ["blend", f"{m['adapter']}@0.5", f"{m['adapter']}", "--out", f"{out}"],
    "resize": lambda m, out: ["blend", f"{m['adapter']}", "--method", "resize", "--rank", "8", "--out", f"{out}"],
    "to audiocraft": lambda m, out: ["convert", f"{m['tuned']}", "--to", "audiocraft", "--out", f"{out}"],
    "to kohya": lambda m, out: ["convert", f"{m['adapter']}", "--to", "kohya", "--out", f"{out}"],
    "to transformers": lambda m, out: [
        *("convert", f"{m['theirs']}", "--to", "transformers", "--base", f"{m['base']}", "--out", f"{out}")
    ],
    "extract": lambda m, out: ["convert", f"{m['tuned']}", "--to", "peft", "--base", f"{m['base']}", "--out", f"{out}"],
    "bundle": lambda m, out: ["bundle", f"{m['adapter']}", f"{out}"],
    "unpack": lambda m, out: ["bundle", "--open", f"{m['bundle']}", f"{out}"],
    "sample": lambda m, out: ["sample", f"{m['adapter']}", "x", "y", "--duration", "2", "--out", f"{out}"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("deep", ["out", "not/yet/there/out"])
def test_commands_on_a_full_disk(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, deep: str
) -> None:
    codes = []
    with small_disk(tmp_path / "disk") as disk:
        for room in ROOM_KIB if command != "sample" else (0, 60, 320):
            leave_free(disk, room)
            words = COMMANDS[command](made, disk / deep)
            codes.append(main([*words, *(["--base", str(made["base"])] if command == "sample" else [])]))
            said = capsys.readouterr()
            check_sentence(codes[-1], said.err, "the disk is full")
            if codes[-1] == 2:
                check_nothing_left(disk, whole=command == "sample")
                if command == "sample":
                    clear(disk)
            else:
                clear(disk)
    assert codes[0] == 2 and codes == sorted(codes, reverse=True), codes


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_a_read_only_disk(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "kept").write_text("mine")
    with read_only(tmp_path):
        words = COMMANDS[command](made, tmp_path / "new" / "out")
        code = main([*words, *(["--base", str(made["base"])] if command == "sample" else [])])
    said = capsys.readouterr()
    check_sentence(code, said.err, "read-only", "not permitted")
    assert code == 2 and tree(tmp_path) == {"kept": b"mine"}


def test_replacing_an_adapter_on_a_full_disk_keeps_the_old_one(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        words = COMMANDS["resize"](made, disk / "out")
        assert main(words) == 0
        before = tree(disk)
        for room in (0, 4, 8):
            leave_free(disk, room)
            assert main([*words, "--overwrite"]) == 2
            assert tree(disk) == before
        leave_free(disk, 600)
        assert main([*words, "--overwrite", "--name", "other"]) == 0
        assert sorted(tree(disk)) == sorted(before) and tree(disk) != before
    assert "bug:" not in capsys.readouterr().err


def test_pulling_onto_a_full_disk(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with hub_stand_in.running() as server, small_disk(tmp_path / "disk") as disk:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        server.repos["ada/blues"] = {path.name: path.read_bytes() for path in made["adapter"].iterdir()}
        for room in (0, 4, 16):
            leave_free(disk, room)
            code = main(["pull", "ada/blues", str(disk / "new" / "out")])
            check_sentence(code, capsys.readouterr().err, "the disk is full")
            assert code == 2 and tree(disk) == {}
        leave_free(disk, 600)
        assert main(["pull", "ada/blues", str(disk / "new" / "out")]) == 0


def test_prep_on_a_full_disk_goes_on_when_there_is_room(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = []
    with small_disk(tmp_path / "disk", 4096) as disk:
        words = ["prep", str(made["songs"]), str(disk / "data"), "--base", str(made["base"]), "--workers", "1"]
        for room in (0, 8, 40, 80, 120, 160, 2000):
            leave_free(disk, room)
            codes.append(main([*words, "--segment.min_sec", "1", "--segment.max_sec", "4"]))
            check_sentence(codes[-1], capsys.readouterr().err, "the disk is full")
            assert (disk / "data" / "prep.yaml").exists() == (codes[-1] == 0)
            assert [name for name in tree(disk) if name.endswith(".part")] == []
        assert codes[:3] == [2, 2, 2] and codes[-1] == 0
        rows, before = (disk / "data" / "clips.jsonl").read_text(), tree(disk / "data")
        leave_free(disk, 8)
        assert main([*words, "--segment.min_sec", "1", "--segment.max_sec", "2"]) == 2
        check_sentence(2, capsys.readouterr().err, "the disk is full")
        after = tree(disk / "data")
        assert {n: b for n, b in after.items() if ".cache" not in n} == {
            n: b for n, b in before.items() if ".cache" not in n
        }
        assert (disk / "data" / "clips.jsonl").read_text() == rows


def test_prep_into_a_read_only_folder(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with read_only(tmp_path):
        code = main(["prep", str(made["songs"]), str(tmp_path / "data"), "--base", str(made["base"])])
    check_sentence(code, capsys.readouterr().err, "read-only", "not permitted")
    assert code == 2 and tree(tmp_path) == {}


QUICK = ["--device", "cpu", "--precision", "fp32", "--steps", "4", "--batch_size", "2", "--rank", "4"]
QUICK += ["--checkpointing", "false", "--max_clip_sec", "1", "--preview.every_steps", "0", "--accumulation", "1"]
QUICK += ["--eval.every_steps", "2", "--checkpoint.every_steps", "2", "--loggers", ""]


@pytest.mark.usefixtures("fresh_processes")
def test_train_on_a_full_disk_goes_on_when_there_is_room(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failure is told, each piece of advice works, and what was finished stays."""
    codes, resume, steps = [], False, []
    with small_disk(tmp_path / "disk", 2048) as disk:
        run = disk / "runs" / "mine"
        for room in (0, 4, 12, 40, 70, 100, 140, 180, 1400):
            leave_free(disk, room)
            words = ["train", str(made["data"]), str(run), *QUICK, *(["--resume"] if resume else [])]
            codes.append(main(words))
            said = capsys.readouterr().err
            check_sentence(codes[-1], said, "the disk is full")
            found = all_steps(run / "checkpoints")
            assert not steps or (found and found[-1] >= steps[-1]), "a checkpoint was lost"
            steps, resume = found, bool(found)
            assert codes[-1] == 0 or ("with --resume" in said if resume else "with --resume" not in said), said
            assert [name for name in tree(disk) if name.endswith(".part")] == []
            if codes[-1] == 0:
                break
        assert codes[0] == 2 and codes[-1] == 0
        assert (run / "report.html").exists() and load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.mark.usefixtures("fresh_processes")
def test_the_last_stage_fails_after_the_adapter_and_comes_again_alone(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune import finish

    write_report = finish.write_report
    with small_disk(tmp_path / "disk", 2048) as disk:
        run = disk / "run"

        def full(*words, **more) -> None:
            leave_free(disk, 0)
            write_report(*words, **more)

        monkeypatch.setattr(finish, "write_report", full)
        assert main(["train", str(made["data"]), str(run), *QUICK]) == 2
        said = capsys.readouterr().err
        assert "The adapter is whole" in said and "only this last stage" in said and "with --resume" in said
        before = load_file(run / "adapter" / "adapter_model.safetensors")
        assert main(["inspect", str(run / "adapter")]) == 0
        leave_free(disk, 1000)
        monkeypatch.setattr(finish, "write_report", write_report)
        n_lines = len((run / "log.jsonl").read_text().splitlines())
        assert main(["train", str(made["data"]), str(run), *QUICK, "--resume"]) == 0
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert "step" not in {line["kind"] for line in lines[n_lines:]}, "no step was trained again"
        assert (run / "report.html").exists()
        after = load_file(run / "adapter" / "adapter_model.safetensors")
        assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


@pytest.mark.usefixtures("fresh_processes")
def test_train_into_a_read_only_folder(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with read_only(tmp_path):
        code = main(["train", str(made["data"]), str(tmp_path / "run"), *QUICK])
    check_sentence(code, capsys.readouterr().err, "read-only", "not permitted")
    assert code == 2 and tree(tmp_path) == {}


def test_a_full_disk_that_a_library_meets_is_no_bug(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from finetune.commands import adapters

    def full(args, settings) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapters, "run", full)
    assert main(["adapters"]) == 2
    check_sentence(2, capsys.readouterr().err, "the disk is full")


def check_sentence(code: int, said: str, *one_of: str) -> None:
    assert code in (0, 2), said
    assert "bug:" not in said and "Traceback" not in said, said
    assert code == 0 or any(words in said for words in one_of), said


def check_nothing_left(disk: Path, *, whole: bool) -> None:
    """Nothing at all; of pieces that were played, those that had room, whole."""
    import soundfile

    left = {name: held for name, held in tree(disk).items() if held is not None}
    assert whole or tree(disk) == {}, sorted(tree(disk))
    assert all(soundfile.info(disk / name).frames == 64_000 for name in left)


def clear(disk: Path) -> None:
    import shutil

    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
