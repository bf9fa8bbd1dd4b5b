"""The page, the WebSocket and the recordings of one session: starlette behind uvicorn.

Every page is a listener of the session with a queue of its own. A page that is too slow loses chunks and is told so;
the others do not notice.
"""

import asyncio
import json
import re
import socket
import struct
from contextlib import suppress
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from adapters.audio_out import pcm16
from configs.errors import UserError
from finetune.live.access import Access
from finetune.live.audience import Event
from finetune.live.error_message import error_message
from finetune.live.messages import MAX_MESSAGE_BYTES, Notes, read_message
from finetune.live.player import Chunk
from finetune.live.session import LiveSession

PROTOCOL = 1
"""Rises when messages change."""
QUEUE_EVENTS = 256
"""What a page may lag behind: a minute or two of chunks."""
HEADER = struct.Struct("<IId")
"""Before the samples of a chunk: run, number, second of the piece."""
SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(session: LiveSession, access: Access) -> Starlette:
    """The application: `/` the page, `/live` the WebSocket, `/status`, and `/recordings/NAME`."""

    async def page(request: Request) -> Response:
        if refused := _refusal(request, access):
            return refused
        return HTMLResponse(page_text(), headers=SAFE_HEADERS)

    async def status(request: Request) -> Response:
        return _refusal(request, access) or JSONResponse({**session.pace().as_message(), "state": session.state()})

    async def recording(request: Request) -> Response:
        if refused := _refusal(request, access):
            return refused
        path = session.recorder.finished.get(request.path_params["name"])  # no path from outside is ever opened
        if path is None or not path.is_file():
            return PlainTextResponse("there is no such recording\n", 404)
        return FileResponse(path, filename=path.name, headers=SAFE_HEADERS)

    async def live(socket: WebSocket) -> None:
        if access.refusal(socket.headers, socket.query_params):
            await socket.close()  # before it is accepted: HTTP 403; `/status` says why in words
            return
        await _Page(socket, session).serve()

    routes = [Route("/", page), Route("/status", status), Route("/recordings/{name}", recording)]
    return Starlette(routes=[*routes, WebSocketRoute("/live", live)])


class _Page:
    """One open page."""

    def __init__(self, socket: WebSocket, session: LiveSession) -> None:
        self.socket, self.session = socket, session
        self.queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_EVENTS)
        self.loop = asyncio.get_running_loop()
        self.lost = 0
        self.holds: tuple[int, ...] = ()
        """The keys that this page said last are held."""

    async def serve(self) -> None:
        """Until it leaves."""
        await self.socket.accept()
        leave = self.session.subscribe(self._offer)
        sender = asyncio.create_task(self._send_all())
        try:
            while True:
                received = await self.socket.receive()
                if received["type"] == "websocket.disconnect":
                    break
                await self._take(received.get("text") or received.get("bytes") or "")
        finally:
            leave()
            if self.holds and self.session.controls.keys.held == self.holds:
                self.session.set_notes(())  # nobody is there to let go of them
            sender.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender

    async def _take(self, text: str | bytes) -> None:
        try:
            message = read_message(text)
            message.act(self.session)
            if isinstance(message, Notes):
                self.holds = self.session.controls.keys.held
        except UserError as error:
            self._put(error_message(error))

    def _offer(self, event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Event) -> None:
        try:
            if self.lost:
                lost = f"this page is too slow: {self.lost} parts of the stream were left out"
                self.queue.put_nowait(error_message(UserError(lost, fix="close other pages, or use a faster network")))
                self.lost = 0
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost += 1

    async def _send_all(self) -> None:
        await self._send(hello(self.session))
        await self._send(self.session.state())
        await self._send(self.session.pace().as_message())
        while True:
            await self._send(await self.queue.get())

    async def _send(self, event: Event) -> None:
        if isinstance(event, Chunk):
            await self.socket.send_bytes(packed(event))
        else:
            await self.socket.send_text(json.dumps(event, ensure_ascii=False))


def page_text() -> str:
    """The page in one piece: its style and scripts stand in files of their own and go where it names them."""
    folder = files("finetune.live").joinpath("page")
    text = folder.joinpath("page.html").read_text("utf-8")
    for part in re.findall(r"/\*([a-z]+\.(?:css|js))\*/", text):
        text = text.replace(f"/*{part}*/", folder.joinpath(part).read_text("utf-8"))
    return text


def hello(session: LiveSession) -> dict[str, Any]:
    """The first message to a page: what plays here."""
    about = session.about
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "base": about.base,
        "adapters": list(about.adapters),
        "sample_rate_hz": about.sample_rate_hz,
        "channels": about.channels,
        "plays": sorted(about.plays),
        "context": about.context,
    }


def packed(chunk: Chunk) -> bytes:
    """A chunk as a page gets it: HEADER, then interleaved 16-bit samples, all little-endian."""
    return HEADER.pack(chunk.run, chunk.number, chunk.second) + pcm16(chunk.waveform)


class LiveServer(uvicorn.Server):
    """uvicorn around one session. `address` is known before it runs: the socket is bound at once.

    Raises:
        UserError: the address cannot be bound.
    """

    def __init__(self, session: LiveSession, host: str, port: int) -> None:
        self.session = session
        self.access = Access.for_host(host)
        self.socket = _bound(host, port)
        app = build_app(session, self.access)
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                lifespan="off",
                timeout_graceful_shutdown=2,
                server_header=False,
            )
        )
        self.port = self.socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.port}/" + (f"?token={self.access.token}" if self.access.token else "")

    def serve_until_stopped(self) -> None:
        """Blocks; SIGINT and SIGTERM end it in the main thread, `should_exit = True` anywhere."""
        try:
            self.run(sockets=[self.socket])
        finally:
            self.socket.close()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen()  # whoever is quick may come before the server runs
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise UserError(
            f"cannot listen there: {error.strerror or error}",
            where=f"{host}:{port}",
            fix="another --port (0 takes a free one); --host 127.0.0.1 is this machine",
        ) from error
    return bound


def _refusal(request: HTTPConnection, access: Access) -> Response | None:
    why = access.refusal(request.headers, request.query_params)
    return PlainTextResponse(why + "\n", 403, headers=SAFE_HEADERS) if why else None
