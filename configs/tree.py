"""The root of the settings tree: one section per command that has settings, and how a tree is written as YAML."""

import textwrap

import yaml

from configs.evaluate import EvaluateSettings
from configs.fields import is_section
from configs.live import LiveSettings
from configs.prep import PrepSettings
from configs.sample import SampleSettings
from configs.section import Section
from configs.train import TrainSettings


class Settings(Section):
    """Everything that can be set. A preset or a YAML file states differences in this tree."""

    prep: PrepSettings = PrepSettings()
    """Settings of `woodshed prep`."""
    train: TrainSettings = TrainSettings()
    """Settings of `woodshed train`."""
    sample: SampleSettings = SampleSettings()
    """Settings of `woodshed sample`."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Settings of `woodshed evaluate`."""
    live: LiveSettings = LiveSettings()
    """Settings of `woodshed live`."""


def section_type(name: str) -> type[Section]:
    """The class of a root section, e.g. "train" → TrainSettings."""
    annotation = Settings.model_fields[name].annotation
    assert is_section(annotation)
    return annotation


def to_yaml(settings: Section, *, comments: bool = False) -> str:
    """YAML that `--config` reads back as exactly these settings.

    A section is put under its name in the root tree, so that the text of `TrainSettings` starts with `train:`. With
    `comments`, each setting is preceded by its docstring.
    """
    if isinstance(settings, Settings):
        named = {name: getattr(settings, name) for name in Settings.model_fields}
    else:
        named = {next(name for name in Settings.model_fields if isinstance(settings, section_type(name))): settings}
    lines: list[str] = []
    for name, section in named.items():
        lines += _comment(Settings.model_fields[name].description, 0) if comments else []
        lines += [f"{name}:", *_section_lines(section, 1, comments)]
    return "\n".join(lines) + "\n"


def _section_lines(section: Section, depth: int, comments: bool) -> list[str]:
    lines: list[str] = []
    plain = section.model_dump(mode="json")
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        lines += _comment(info.description, depth) if comments else []
        if isinstance(value, Section):
            lines += ["  " * depth + f"{name}:", *_section_lines(value, depth + 1, comments)]
        else:
            listed = yaml.safe_dump([plain[name]], allow_unicode=True, default_flow_style=True, width=float("inf"))
            lines.append(f"{'  ' * depth}{name}: {listed.strip()[1:-1]}")
    return lines


def _comment(text: str | None, depth: int) -> list[str]:
    return [f"{'  ' * depth}# {line}" for line in textwrap.wrap(" ".join((text or "").split()), 100)]
