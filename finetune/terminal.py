"""How `woodshed` speaks on a terminal: errors in plain words, tables that also read well in a file.

rich follows NO_COLOR and leaves colours out when the output is no terminal.
"""

import sys
import traceback
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from adapters.printable import printable
from configs.errors import UserError


def show_user_error(error: UserError, *, debug: bool) -> None:
    """What happened, where, and the next step, on stderr."""
    console = Console(stderr=True, highlight=False)
    if debug:
        _show_traceback(error)
    console.print(f"[bold red]error:[/] {_lines(error.what)}", soft_wrap=True)
    if error.where:
        console.print(f"  [bold]where:[/] {_lines(error.where)}", soft_wrap=True)
    if error.fix:
        console.print(f"  [bold]next:[/] {_lines(error.fix)}", soft_wrap=True)


def show_bug(error: BaseException, *, debug: bool) -> None:
    """An error nobody foresaw: say so in one line."""
    if debug:
        _show_traceback(error)
    first = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    more = "the traceback above belongs into a report" if debug else "run it again with --debug to see where"
    Console(stderr=True, highlight=False).print(
        f"[bold red]bug:[/] {harmless(text)} (this should not happen; {more})", soft_wrap=True
    )


def harmless(text: str) -> str:
    """Somebody's text on one line for rich: what cannot be printed is shown as an escape, markup is not obeyed."""
    return escape(printable(text))


def forced_lines(notes: Iterable[str]) -> list[str]:
    """For rich: what --force let pass, each thing once."""
    return [f"[yellow]forced:[/] {harmless(note)}" for note in dict.fromkeys(notes)]


def _lines(text: str) -> str:
    return "\n".join(map(harmless, text.split("\n")))


def _show_traceback(error: BaseException) -> None:
    """As Python shows it, but for escape sequences: messages quote files from strangers."""
    for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
        print(printable(line), file=sys.stderr)


def survive_odd_characters() -> None:
    """A file name or sign that the terminal's encoding lacks is replaced; it never ends a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
