"""Names from outside as text that can be written anywhere: a file's name may be bytes that are no UTF-8."""


def printable(name: str) -> str:
    r"""Bytes that are no UTF-8 as `\xNN`, halves of characters (JSON can spell them, no file has them) as `\uNNNN`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()
