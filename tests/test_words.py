"""Words that are no terms of the field stay out of what people read: help, keys of files, output, docs."""

import re
from pathlib import Path

import pytest

from finetune.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "log.md")]
KEPT_OUT = {
    "told": r"\btold\b(?! (?:\w+ )?apart)",
    "heard as a key": r"`heard`|\"heard\"",
    "melt": r"\bmelt(?:s|ed|ing)?\b",
    "hear it work": r"\bhear it work\b",
}


def found(text: str) -> list[str]:
    return [name for name, pattern in KEPT_OUT.items() if re.search(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_speak_the_language_of_the_field(page: Path) -> None:
    assert found(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_speaks_the_language_of_the_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([name, "--help"] if name else ["--help"])
    assert found(capsys.readouterr().out) == []


def test_the_keys_of_files_do(tiny_data: Path) -> None:
    for path in (tiny_data / "clips.jsonl", tiny_data / "prep.yaml", tiny_data / "rejected.jsonl"):
        assert found(path.read_text("utf-8")) == []


def test_these_words_would_be_found() -> None:
    assert found("as told, `heard` is melted") == ["told", "heard as a key", "melt"]
    assert found("what is heard between them; toldo") == []
