"""One form for every text that is compared later: captions, triggers, prompts, file names.

Two texts that look the same on the screen can differ in their bytes: a letter with its accent in one character or in
two (NFC and NFD: macOS writes file names in NFD), a space that does not break, a mark of no width. It knows nothing of
what a text means.
"""

import unicodedata

_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "‒": "-", "–": "-"})


def normal_text(text: str) -> str:
    """NFC on one line: every run of spaces, line ends and control characters is one space, none at the ends, and
    characters that nobody sees (formatting, halves of characters, unassigned) are left out.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category[0] == "Z" or category == "Cc":
            kept.append(" ")
        elif category[0] != "C":
            kept.append(character)
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))


def folded(text: str) -> str:
    """`normal_text` without upper case and with plain quotes and hyphens, for comparing. It is not for showing."""
    return unicodedata.normalize("NFC", normal_text(text).translate(_QUOTES).casefold())
