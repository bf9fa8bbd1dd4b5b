"""Controllers that speak OSC: each address is one message of the page, under the same checks.

`/woodshed/strength mine 0.5` is `{"type": "strength", "adapter": "mine", "strength": 0.5}`. UDP has no way to answer:
what cannot be used is told to the open pages.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from configs.errors import UserError
from finetune.live.error_message import error_message
from finetune.live.messages import as_message
from finetune.live.session import LiveSession

PREFIX = "/woodshed/"


def _number(value: Any) -> float:
    """OSC has 32-bit floats: 0.4 comes as 0.4000000059604645."""
    return round(float(value), 6)


FIELDS: dict[str, Sequence[tuple[str, Callable[[Any], Any]]]] = {
    "start": (),
    "stop": (),
    "reset": (("seed", int),),
    "weight": (("prompt", int), ("weight", _number)),
    "strength": (("adapter", str), ("strength", _number)),
    "guidance": (("guidance", _number),),
    "temperature": (("temperature", _number),),
    "top_k": (("top_k", int),),
    "top_p": (("top_p", _number),),
    "chaos": (("amount", _number),),
    "chunk_sec": (("chunk_sec", _number),),
    "buffer_sec": (("buffer_sec", _number),),
    "drums": (("drums", str),),
    "context_level": (("level", _number),),
    "record": (("on", bool),),
}
"""Address → the fields of its message, in order. `/woodshed/prompts` takes text, weight, text, weight, …, and
`/woodshed/notes` all pitches that are held."""
PART_OF: dict[str, str] = dict.fromkeys(("guidance", "temperature", "top_k", "top_p"), "sampling")
PART_OF |= dict.fromkeys(("chunk_sec", "buffer_sec"), "pace")


def fields_of(address: str, values: Sequence[Any]) -> dict[str, Any]:
    """The fields of the message that an address and its values stand for.

    Raises:
        UserError: no such address, or values that do not fit.
    """
    name = address.removeprefix(PREFIX)
    try:
        if name == "prompts" and values and len(values) % 2 == 0:
            pairs = zip(values[::2], values[1::2], strict=True)
            return {"type": "prompts", "prompts": [{"text": str(text), "weight": _number(w)} for text, w in pairs]}
        if name == "notes":
            return {"type": "notes", "pitches": [int(pitch) for pitch in values]}
        fields = FIELDS[name]
        if len(values) > len(fields):
            raise ValueError("too many values")
        read = {field: kind(value) for (field, kind), value in zip(fields, values, strict=False)}
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"OSC {address[:80]} with {len(values)} value(s) means nothing here", fix="see docs/live.md"
        ) from error
    return {"type": PART_OF.get(name, name), **read}


class OscInput:
    """Listens on a UDP port in a thread of its own until `close`.

    Raises:
        UserError: python-osc is not installed, or the port is taken.
    """

    def __init__(self, session: LiveSession, host: str, port: int) -> None:
        try:
            from pythonosc.dispatcher import Dispatcher
            from pythonosc.osc_server import BlockingOSCUDPServer
        except ImportError as error:
            raise UserError(
                "OSC needs python-osc, which is not installed", fix='pip install "woodshed[osc]"'
            ) from error

        def take(address: str, *values: Any) -> None:
            try:
                as_message(fields_of(address, values)).act(session)
            except UserError as problem:
                session.tell(error_message(problem))

        dispatcher = Dispatcher(strict_timing=False)  # a bundle from the future must not hold up the others
        dispatcher.set_default_handler(take)
        try:
            self.server = BlockingOSCUDPServer((host, port), dispatcher)
        except OSError as error:
            raise UserError(
                f"cannot listen for OSC: {error.strerror or error}", where=f"{host}:{port}", fix="another --osc_port"
            ) from error
        self.thread = threading.Thread(target=self.server.serve_forever, name="woodshed-osc", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
