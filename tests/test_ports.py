"""Outside a family's folder no file names an architecture: not a module path, not a class of transformers' models."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BY_NATURE = (
    "adapters/family/",
    "adapters/convert/",
    "data_prep/magenta_rt2/",
    "data_prep/debug_base",
    "data_prep/debug_tokenizer.py",
)
"""Families' own folders and files, the converters of one family's formats, and the random bases."""
NAMES = {
    "a module of MusicGen's decoder": r"\b(decoder\.model\.decoder|encoder_attn|enc_to_dec_proj|lm_heads)\b",
    "a model class of transformers": r"\bMusicgen(Melody)?(For|Config|Decoder)\w*",
    "a module of Magenta RealTime": r"\b(depthformer|temporal_body|depth_body)\b",
    "a fixed frame rate": r"(?i)\bframes?_per_sec(ond)?\s*=\s*50\b|\b\w*frames\s*/\s*50\b",
}


def offences(text: str) -> list[str]:
    """What a product file says that only a family may know."""
    return [f"{what}: {found[0]}" for what, pattern in NAMES.items() if (found := re.search(pattern, text))]


def product_files() -> list[Path]:
    files = [
        path for package in ("configs", "data_prep", "adapters", "finetune") for path in (ROOT / package).rglob("*.py")
    ]
    return [path for path in files if not path.relative_to(ROOT).as_posix().startswith(BY_NATURE)]


@pytest.mark.parametrize("path", sorted(product_files()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_outside_a_family_names_an_architecture(path: Path) -> None:
    assert not offences(path.read_text(encoding="utf-8"))


def test_an_offence_would_be_seen() -> None:
    assert offences('x = lm.get_submodule("decoder.model.decoder.layers.0")')
    assert offences("from transformers import MusicgenForConditionalGeneration")
    assert offences("FRAMES_PER_SEC = 50") and offences("seconds = n_frames / 50")
    assert not offences("a MusicGen base, like facebook/musicgen-small")


DOUBLES = ("Hearing", "hear_known", "hear_again", "hear_part", "Performance", "surprise")
"""Words of our own that the field has other names for."""


def test_words_that_the_field_has_names_for_are_gone() -> None:
    for path in (p for package in ("data_prep", "adapters", "finetune") for p in (ROOT / package).rglob("*.py")):
        found = re.search(rf"\b({'|'.join(DOUBLES)})\b", path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"
