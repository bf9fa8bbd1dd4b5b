import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from configs.errors import UserError
from finetune import cli
from finetune.flags import declare

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "torchaudio", "transformers", "peft", "accelerate", "librosa", "demucs", "datasets", "matplotlib"}


def present_commands() -> list[str]:
    return [name for name in cli.COMMANDS if importlib.util.find_spec(f"finetune.commands.{name}")]


def in_new_process(code: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture
def rehearse(monkeypatch):
    """A command of the test's own under the name `train`, with that section; what it was called with is kept."""
    module = types.ModuleType("finetune.commands.train")
    calls: list = []

    def arguments(parser) -> None:
        parser.add_argument("data", help="Prepared dataset.")
        parser.add_argument("--resume", action="store_true", help="Go on.")
        parser.add_argument("--prompt", nargs="+", help="Several.")

    def run(args, settings) -> int:
        calls.append((args, settings))
        return module.outcome() if hasattr(module, "outcome") else 0

    vars(module).update(SECTION="train", EXAMPLES="woodshed train data/mine", arguments=arguments, run=run)
    vars(module).update(ALIASES={"rank": "lora.rank"}, calls=calls)
    monkeypatch.setitem(sys.modules, "finetune.commands.train", module)
    return module


def test_each_command_of_the_table_is_there():
    assert present_commands() == list(cli.COMMANDS)


@pytest.mark.parametrize("name", present_commands())
def test_help_of_each_command_ends_with_examples(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: woodshed {name}")
    examples = text.rpartition("\nexamples:\n")[2].strip().splitlines()
    assert examples
    assert any(f"woodshed {name}" in line for line in examples)
    assert cli.main(["help", name]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", present_commands())
def test_every_short_name_means_a_setting_and_hides_no_other_flag(name):
    module = importlib.import_module(f"finetune.commands.{name}")
    declare(name, cli.COMMANDS[name], module)


def test_main_help_lists_the_commands(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        assert all(f"  {name} " in text and line in text for name, line in cli.COMMANDS.items())


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("woodshed ")


def test_main_help_imports_the_standard_library_only():
    code = """
import sys
before = set(sys.modules)
from finetune.cli import main
main(['--help'])
ours = {name for name in sys.modules if name not in before}
import json
print(json.dumps(sorted({name.partition('.')[0] for name in ours} - set(sys.stdlib_module_names))))
"""
    done = in_new_process(code)
    assert json.loads(done.stdout.splitlines()[-1]) == ["finetune"], done.stderr


@pytest.mark.parametrize("name", present_commands())
def test_help_of_a_command_imports_nothing_heavy(name):
    code = f"import sys; from finetune.cli import main; main(['{name}', '-h']); print([*sys.modules], file=sys.stderr)"
    done = in_new_process(code)
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1]
    assert not [heavy for heavy in HEAVY if f"'{heavy}'" in loaded]


def test_settings_come_as_the_section_and_flags_of_its_own_beside(rehearse):
    words = ["train", "--preset", "10gb", "a", "--resume", "--rank", "3", "--optim.lr=1e-4", "--lora.targets", "q,v"]
    assert cli.main([*words, "--prompt", "x", "y"]) == 0
    args, settings = rehearse.calls[0]
    assert vars(args) == {"data": "a", "resume": True, "prompt": ["x", "y"]}
    assert (settings.lora.rank, settings.optim.lr, settings.lora.targets) == (3, 1e-4, ["q", "v"])
    assert settings.memory == "9.5gb", "from the preset"


def test_help_explains_settings_with_type_range_and_default(rehearse, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Rank r of each update. (a whole number from 1 to 512; default 16)" in text
    assert "The same as --lora.rank." in text
    assert "less memory, 25 to 45 % slower. (true or false; default true)" in text, "a percent sign is no format here"
    assert not rehearse.calls


def test_all_problems_of_the_command_line_come_at_once(rehearse, capsys):
    words = ["train", "--lora.rnk", "3", "--preset", "8bg", "--rank=0", "--resum", "--config", "none.yaml"]
    assert cli.main(words) == 2
    text = capsys.readouterr().err
    for part in (
        "did you mean 8gb",
        "none.yaml: there is no such file",
        "mean --lora.rank",
        "mean --resume",
        "1 to 512",
    ):
        assert part in text, part
    assert not rehearse.calls


def test_the_value_of_a_mistyped_flag_is_no_further_mistake(rehearse, capsys):
    for words in (["--lora.rnk", "3", "a"], ["a", "--lora.rnk", "3"], ["a", "--lora.rnk=3"], ["--resum", "a"]):
        assert cli.main(["train", *words]) == 2
        text = capsys.readouterr().err
        assert text.count("there is no such setting; did you mean") == 1
        assert "missing" not in text
        assert "not expected" not in text
    assert cli.main(["train", "--resum", "a", "--rank"]) == 2
    assert "--rank: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["doctor", "x"], ["inspect", "a", "x"], ["train", "a", "b", "x"]])
def test_a_word_too_many_is_named_alone(words, capsys):
    assert cli.main(words) == 2
    assert "error: not expected here: x\n" in capsys.readouterr().err


def test_what_is_missing_is_named(capsys):
    assert cli.main(["captions"]) == 2
    assert "error: missing: data\n" in capsys.readouterr().err


def test_what_is_missing_is_said_beside_wrong_settings(rehearse, capsys):
    assert cli.main(["train", "--rank", "0"]) == 2
    text = capsys.readouterr().err
    assert "missing: data" in text
    assert "from 1 to 512" in text


def test_negative_numbers_and_the_end_of_flags(rehearse, capsys):
    assert cli.main(["train", "a", "--lora.alpha", "-3"]) == 2
    assert "must be a number above 0, not '-3'" in capsys.readouterr().err
    assert cli.main(["train", "--rank", "5", "--", "--odd-name"]) == 0
    assert rehearse.calls[0][0].data == "--odd-name"


def test_printed_settings_are_read_back(rehearse, capsys, tmp_path):
    assert cli.main(["train", "--preset", "24gb", "--rank", "7", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "# Rank r of each update." in printed
    path = tmp_path / "mine.yaml"
    path.write_text(printed, encoding="utf-8")
    assert cli.main(["train", "a", "--config", str(path)]) == 0
    assert cli.main(["train", "a", "--preset", "24gb", "--rank", "7"]) == 0
    assert rehearse.calls[0][1] == rehearse.calls[1][1]


def test_a_command_that_does_not_exist(capsys):
    assert cli.main(["trian"]) == 2
    assert "did you mean `woodshed train`?" in capsys.readouterr().err
    assert cli.main(["\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def raising(error: BaseException):
    def outcome():
        raise error

    return outcome


def test_a_mistake_of_the_user_is_one_message_and_code_2(rehearse, capsys):
    rehearse.outcome = raising(UserError("no [bold]songs[/] here", where="a/[red]b", fix="put some there"))
    assert cli.main(["train", "a"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: no [bold]songs[/] here\n  where: a/[red]b\n  next: put some there\n"
    assert shown.out == ""


def test_debug_shows_the_traceback(rehearse, capsys):
    rehearse.outcome = raising(UserError("no songs"))
    for words in (["train", "a", "--debug"], ["--debug", "train", "a"]):
        assert cli.main(words) == 2
        text = capsys.readouterr().err
        assert "Traceback" in text
        assert "error: no songs" in text


def test_a_bug_says_so_in_one_line_and_code_1(rehearse, capsys):
    rehearse.outcome = raising(RuntimeError("first\nsecond"))
    assert cli.main(["train", "a"]) == 1
    text = capsys.readouterr().err
    assert "RuntimeError: first" in text
    assert "--debug" in text
    assert len(text.strip().splitlines()) == 1
    assert cli.main(["train", "a", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_code_130(rehearse, capsys):
    rehearse.outcome = raising(KeyboardInterrupt())
    assert cli.main(["train", "a"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_a_reader_that_leaves_is_no_error():
    code = """
import sys
from finetune import cli
cli._help = lambda: 'x\\n' * 200_000
sys.exit(cli.main([]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert complaint == ""


def test_no_colour_and_an_encoding_without_our_signs():
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"}
    code = "from finetune.cli import main; raise SystemExit(main(['doctor', '--help']) or main(['doctor', '--täst']))"
    done = in_new_process(code, env=environment)
    assert done.returncode == 2
    assert "usage: woodshed doctor" in done.stdout
    assert "--t?st" in done.stderr
    assert "\x1b[3" not in done.stderr
