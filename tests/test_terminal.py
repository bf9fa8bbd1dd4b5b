"""No text of a stranger's adapter is obeyed by the terminal, whichever command shows it; no path is cut."""

import json
import shutil

import pytest
from adapter_fixtures import write_adapter

from adapters.printable import printable, short
from configs.errors import UserError
from data_prep.debug_base import write_debug_base
from finetune.cli import main
from finetune.terminal import show_bug, show_user_error

EVIL = "evil \x1b]0;pwned\x07 [bold]\x9b2J \u202e\nnext: harm"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e")


@pytest.fixture(scope="module")
def evil(mono_base, tmp_path_factory):
    told = {"name": EVIL, "trigger": EVIL, "prompts": [EVIL], "license": EVIL}
    return write_adapter(tmp_path_factory.mktemp("evil") / "evil", mono_base, told=told)


def shown(capsys) -> str:
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert not [character for character in OBEYED if character in text]
    return text


def test_errors_quote_but_do_not_obey(capsys):
    error = UserError(f"one\ntwo {EVIL}", where=EVIL, fix=EVIL)
    show_user_error(error, debug=False)
    text = shown(capsys)
    assert text.startswith("error: one\ntwo evil \\x1b]0;pwned\\x07 [bold]\\x9b2J \\u202e\n")
    show_user_error(error, debug=True)
    show_bug(ValueError(EVIL), debug=True)
    assert "\\x1b]0;pwned" in shown(capsys)


def test_every_command_that_shows_an_adapter(evil, mono_base, tmp_path, capsys):
    other = write_adapter(tmp_path / "other", write_debug_base(tmp_path / "base", seed=9), seed=1)
    commands = [
        ["inspect", evil],
        ["adapters", evil],
        ["adapters", evil, "--json"],
        ["bundle", evil, tmp_path / "evil.zip"],
        ["bundle", "--open", tmp_path / "evil.zip", tmp_path / "opened"],
        ["blend", evil, other, "--out", tmp_path / "blended"],
        ["blend", evil, other, "--out", tmp_path / "blended", "--debug"],
        ["push", evil, "ada/evil"],
    ]
    codes = []
    for command in commands:
        codes.append(main(list(map(str, command))))
        assert "\nnext: harm" not in shown(capsys), command
    assert codes == [0, 0, 0, 0, 0, 2, 2, 2]


def test_the_base_that_a_plain_adapter_names(evil, tmp_path, capsys):
    plain = shutil.copytree(evil, tmp_path / "plain")
    (plain / "woodshed.json").unlink()
    config = json.loads((plain / "adapter_config.json").read_text())
    (plain / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": EVIL}))
    assert main(["sample", str(plain), "x", "--out", str(tmp_path / "out")]) == 2
    assert main(["merge", str(plain), str(tmp_path / "merged")]) == 2
    assert "evil \\x1b]0;pwned" in shown(capsys)


def test_no_path_is_cut(evil, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6, "mine")
    long.parent.mkdir(parents=True)
    assert main(["bundle", str(evil), str(tmp_path / "evil.zip")]) == 0
    assert main(["bundle", "--open", str(tmp_path / "evil.zip"), str(long)]) == 0
    assert f"{long}: evil" in shown(capsys)
    (long / "adapter_config.json").write_text("{}")
    assert main(["adapters", str(long)]) == 0
    assert f"{long}: " in shown(capsys)


def test_a_piece_of_text_says_where_it_was_cut():
    assert printable("Füße & 音楽 – ok") == "Füße & 音楽 – ok"
    assert short("x" * 120) == "x" * 120
    assert short("x" * 121) == "x" * 117 + "..."
    assert printable("a\r\n\ud800") == "a\\r\\n\\ud800"
