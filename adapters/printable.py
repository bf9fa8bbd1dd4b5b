"""Somebody else's text for a terminal or a message: every character is shown, none is obeyed.

A file from a stranger may hold escape sequences (which rename a window, move the cursor, hide text) and marks that turn
the direction of writing. Rich's own markup is for `finetune.terminal`; Markdown and YAML are for `adapters.card`.
"""

LONGEST = 120


def printable(text: str) -> str:
    r"""The whole text on one line, with what cannot be printed as Python would write it: `\x1b`, `\n`, `\u202e`."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def short(value: object) -> str:
    """A piece of it for a message: at most 120 characters, with a sign where more was left out."""
    text = printable(str(value)[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
