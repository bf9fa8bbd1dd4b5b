"""What the documentation promises: lines of readable length, links that lead somewhere, commands that parse."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.cli import COMMANDS
from finetune.flags import Flags, declare, read

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "starter/README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_CHARACTERS = 120

a_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_lines(text: str) -> Iterator[str]:
    """Every line of fenced and of indented code, continued lines as one."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"^ {4}\S.*$", prose(text).replace("\\\n", " "), flags=re.MULTILINE)


def commands(line: str) -> Iterator[list[str]]:
    """The words behind `woodshed` of every such command in a line of shell."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # code of another language
        return
    while words:
        end = min((words.index(sign) for sign in ("&&", "|", ";") if sign in words), default=len(words))
        command, words = words[:end], words[end + 1 :]
        while command and (command[:2] == ["uv", "run"] or re.fullmatch(r"[A-Z_]+=.*", command[0])):
            command = command[2:] if command[0] == "uv" else command[1:]
        if len(command) > 1 and command[0] == "woodshed":
            yield command[1:]


def flags_of(name: str) -> Flags:
    assert name in COMMANDS, f"there is no command {name!r}"
    return declare(name, COMMANDS[name], importlib.import_module(f"finetune.commands.{name}"))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@a_page
def test_lines_are_short_enough_to_read(page: Path) -> None:
    long = [
        f"{len(line)} characters: {line}"
        for line in prose(page.read_text(encoding="utf-8")).splitlines()
        if len(line) > MOST_CHARACTERS and not line.startswith(("|", "    ")) and "](" not in line and "://" not in line
    ]
    assert not long, long


@a_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        if not there.exists() or (anchor and anchor not in map(slug, headings)):
            dead.append(target)
    assert not dead, dead


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(
        re.findall(
            r"`((?:adapters|benchmarks|configs|data_prep|finetune|starter|tests|docs)/[\w./-]+\.(?:py|md|json|yaml|svg|png))`",
            page.read_text(),
        )
    )
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, missing


@a_page
def test_commands_in_code_parse(page: Path) -> None:
    for line in code_lines(page.read_text(encoding="utf-8")):
        for name, *words in commands(line):
            read(flags_of(name), [word for word in words if word not in ("--help", "-h")])


@a_page
def test_flags_in_prose_exist(page: Path) -> None:
    unknown = []
    for span in re.findall(r"`woodshed ([a-z][^`]*)`", prose(page.read_text(encoding="utf-8"))):
        name, *words = re.split(r"\s+", span)
        known = {"help", "debug", *flags_of(name).names()}
        unknown += [f"{name} {word}" for word in words if word.startswith("--") and word[2:] not in known]
    assert not unknown, unknown


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_parse(name: str) -> None:
    found = [
        words
        for line in importlib.import_module(f"finetune.commands.{name}").EXAMPLES.splitlines()
        for words in commands(line)
    ]
    assert found
    for other, *words in found:
        read(flags_of(other), words)


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"](docs/{page.name})" not in readme] == []


def test_commands_are_found_in_shell() -> None:
    line = 'A=1 uv run woodshed prep songs/ out --trigger "in the style" && woodshed train out run | cat # woodshed x'
    assert list(commands(line)) == [["prep", "songs/", "out", "--trigger", "in the style"], ["train", "out", "run"]]
    assert list(commands("print('it's woodshed x')")) == []
