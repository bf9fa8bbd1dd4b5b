import pytest
import yaml

from configs.errors import UserError
from configs.fields import default_of, expected, leaves, nearest
from configs.layers import preset_names, resolve
from configs.prep import PrepSettings
from configs.sample import SampleSettings
from configs.train import TrainSettings
from configs.tree import Settings, to_yaml
from configs.yaml_file import parse_yaml


def problems(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        resolve(*args, **kwargs)
    return str(caught.value)


def write(folder, text: str):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_gives_the_defaults():
    assert resolve("train") == TrainSettings()
    assert resolve("prep") == PrepSettings()
    assert resolve("sample") == SampleSettings()


def test_later_layers_win_setting_by_setting(tmp_path):
    path = write(tmp_path, "train: {lora: {rank: 4, alpha: 5}, batch_size: 3}")
    settings = resolve("train", "10gb", path, {"lora.rank": "9"})
    assert isinstance(settings, TrainSettings)
    assert settings.lora.rank == 9
    assert settings.lora.alpha == 5
    assert settings.batch_size == 3
    assert settings.memory == "9.5gb", "the preset's, which nothing above it covers"
    assert settings.lora.dropout == TrainSettings().lora.dropout


def test_a_list_is_replaced_not_extended(tmp_path):
    path = write(tmp_path, "train: {lora: {targets: [q, k]}}")
    assert resolve("train", None, path).lora.targets == ["q", "k"]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[mix,drums]", ["mix", "drums"]),
        ("[ 'mix', drums ]", ["mix", "drums"]),
        ("mix,instrumental", ["mix", "instrumental"]),
        ("mix", ["mix"]),
        ("drums+bass,mix", ["drums+bass", "mix"]),
    ],
)
def test_lists_on_the_command_line(text, value):
    assert resolve("prep", flags={"stems.use": text}).stems.use == value  # pyright: ignore[reportAttributeAccessIssue]


def test_a_prompt_with_a_comma_stays_one_prompt():
    settings = resolve("train", flags={"preview.prompts": "slow ballad, piano"})
    assert settings.preview.prompts == ["slow ballad, piano"]  # pyright: ignore[reportAttributeAccessIssue]


def test_free_text_is_never_read_as_yaml():
    for text in ("12", "true", "a: b", "[x]", "null", "1e-4", "#1"):
        assert resolve("prep", flags={"captions.trigger": text}).captions.trigger == text  # pyright: ignore[reportAttributeAccessIssue]


def test_null_numbers_and_switches_on_the_command_line():
    settings = resolve("train", flags={"revision": "null", "checkpointing": "false", "optim.lr": "1e-4", "steps": "7"})
    assert isinstance(settings, TrainSettings)
    assert settings.revision is None
    assert settings.checkpointing is False
    assert settings.optim.lr == 1e-4
    assert settings.steps == 7


def test_flag_typo_names_the_nearest():
    assert "--lora.rnk: there is no such setting; did you mean --lora.rank?" in problems(
        "train", flags={"lora.rnk": "3"}
    )
    assert "did you mean --lora.rank?" in problems("train", flags={"rank": "3"}), "the right name without its group"
    assert "is a group of settings; name one of --lora.rank" in problems("train", flags={"lora": "3"})


def test_yaml_typo_names_file_line_and_the_nearest(tmp_path):
    path = write(tmp_path, "prep:\n  captions:\n    triger: x\n")
    found = problems("train", None, path)
    assert (
        f"prep.captions.triger ({path}, line 3): there is no such setting; did you mean prep.captions.trigger?" in found
    )
    assert "did you mean train?" in problems("train", None, write(tmp_path, "trian: {steps: 3}"))
    assert "did you mean train.lora?" in problems("train", None, write(tmp_path, "lora: {rank: 3}"))


def test_preset_typo_names_the_nearest():
    found = problems("train", "8bg")
    assert "--preset 8bg: did you mean 8gb?" in found
    assert all(name in found for name in preset_names())


def test_wrong_choice_names_the_nearest():
    found = problems("train", flags={"precision": "bf61", "loggers": "wandb,tensorbord"})
    assert "--precision: must be one of auto, bf16, fp16, fp32, not 'bf61'; did you mean bf16?" in found
    assert "--loggers[1]" in found
    assert "not 'tensorbord'; did you mean tensorboard?" in found


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("lora.rank", "0", "must be a whole number from 1 to 512, not '0'"),
        ("lora.rank", "513", "must be a whole number from 1 to 512, not '513'"),
        ("lora.rank", "many", "must be a whole number from 1 to 512, not 'many'"),
        ("lora.rank", "1.5", "must be a whole number from 1 to 512, not '1.5'"),
        ("lora.alpha", "-1", "must be a number above 0, not '-1'"),
        ("optim.lr", "11", "must be a number above 0 and up to 10"),
        ("lora.dropout", "1", "must be a number from 0 to below 1, not '1'"),
        ("steps", "-1", "must be a whole number 0 or more, not '-1'"),
        ("epochs", "inf", "must be a number above 0, not 'inf'"),
        ("optim.weight_decay", "nan", "must be a number from 0 to 1, not 'nan'"),
        ("checkpointing", "perhaps", "must be true or false, not 'perhaps'"),
        ("lora.targets", "[q", "is no list"),
    ],
)
def test_a_wrong_value_is_told_what_would_be_right(flag, value, says):
    found = problems("train", flags={flag: value})
    assert f"--{flag}: " in found
    assert says in found


def test_all_problems_of_all_layers_come_in_one_message(tmp_path):
    path = write(tmp_path, "train:\n  lora: {rank: 0}\n  stepps: 3\nsample:\n  top_p: 2\nprep: 7\n")
    found = problems("train", "8bg", path, {"lora.rnk": "3", "lora.rank": "4", "precision": "bf61"})
    assert found.startswith("7 things to mend:")
    for part in ("8bg", "train.lora.rank", "stepps", "sample.top_p", "prep (", "--lora.rnk", "--precision"):
        assert part in found, part
    assert "woodshed train --help" in found


def test_a_mistake_that_a_later_layer_covers_is_still_refused(tmp_path):
    assert "train.steps" in problems("train", None, write(tmp_path, "train: {steps: -4}"), {"steps": "5"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train:\n  steps: 1\n  steps: 2\n", "train.steps (mine.yaml, line 3): stands twice, first on line 2"),
        ("train: !!python/object/apply:os.system ['exit 3']\n", "is not plain YAML (line 1"),
        ("train: [unclosed\n", "is not plain YAML"),
        ("- a\n- b\n", "must hold sections such as `train:`, not a list"),
        ("just words", "not a single value"),
        ("a: &a {b: *a}\n", ""),
    ],
)
def test_odd_yaml(text, says, tmp_path, monkeypatch):
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    assert says in problems("train", None, "mine.yaml")


def test_yaml_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    found = parse_yaml(f"x: !!python/object/apply:os.mkdir ['{mark}']", "x.yaml")
    assert found.problems
    assert not found.values
    assert not mark.exists()


def test_files_that_cannot_be_read(tmp_path):
    assert "there is no such file" in problems("train", None, tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in problems("train", None, tmp_path / "bytes.yaml")
    assert "cannot be read" in problems("train", None, tmp_path)


def test_empty_files_and_groups_state_no_difference(tmp_path):
    assert resolve("train", None, write(tmp_path, "")) == TrainSettings()
    assert resolve("train", None, write(tmp_path, "train:\n  lora:\nprep:\n")) == TrainSettings()


def test_true_is_no_number(tmp_path):
    assert "train.lora.rank" in problems("train", None, write(tmp_path, "train: {lora: {rank: true}}"))


@pytest.mark.parametrize("comments", [False, True])
def test_saved_settings_come_back_exactly(tmp_path, comments):
    settings = Settings()
    settings.train.optim.lr = 1.2345678901234567e-05
    settings.train.preview.prompts = ["a: b", "# no comment", "it's, [odd]", "täglich\nzwei Zeilen", "1e-4", "null", ""]
    settings.prep.captions.trigger = "yes"
    settings.prep.revision = "1.0"
    for section in (settings.train, settings.prep, settings.sample):
        path = write(tmp_path, to_yaml(section, comments=comments))
        name = next(iter(yaml.safe_load(path.read_text(encoding="utf-8"))))
        assert resolve(name, None, path) == section
    assert Settings.model_validate(yaml.safe_load(to_yaml(settings, comments=comments))) == settings


def test_two_resolved_trees_share_nothing():
    first, second = resolve("train"), resolve("train")
    assert isinstance(first, TrainSettings)
    first.lora.targets.append("q")
    first.lora.rank = 99
    assert second == TrainSettings()


def test_every_setting_has_a_docstring_and_words_for_its_values():
    for name, info in leaves(Settings):
        assert info.description, name
        assert "typing" not in expected(info), name
        assert "class" not in expected(info), name
        default_of(Settings, name)


def test_nearest_finds_nothing_where_nothing_is_near():
    assert nearest("zzz", ["lora.rank", "steps"]) is None
