"""The server of `woodshed live`: its protocol, who may play, and messages that mean nothing."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixtures import PATIENCE_SEC, eventually, opened, write_mine

pytest.importorskip("starlette", reason="`woodshed live` is not tested: install the extra `live`")
pytest.importorskip("uvicorn", reason="`woodshed live` is not tested: install the extra `live`")
connections = pytest.importorskip("websockets.sync.client", reason="`woodshed live` is not tested: install `live`")

from websockets.exceptions import InvalidStatus  # noqa: E402

from configs.errors import UserError  # noqa: E402
from data_prep.magenta_rt2.debug_base import write_debug_mrt2  # noqa: E402
from finetune.live.access import Access, is_loopback  # noqa: E402
from finetune.live.messages import MAX_MESSAGE_BYTES, read_message  # noqa: E402
from finetune.live.server import HEADER, LiveServer  # noqa: E402


@pytest.fixture(scope="module")
def mine(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mine(mono_base, tmp_path_factory.mktemp("live"))


def running(server: LiveServer) -> threading.Thread:
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    return thread


@pytest.fixture(scope="module")
def server(mono_base: Path, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with opened(mono_base, mine, tmp_path_factory.mktemp("out"), idle_sec=600) as session:
        made = LiveServer(session, "127.0.0.1", 0)
        thread = running(made)
        yield made
        made.should_exit = True
        thread.join(PATIENCE_SEC)


class Client:
    """A page without a browser."""

    def __init__(self, server: LiveServer, **more: Any) -> None:
        where = f"ws://127.0.0.1:{server.port}/live"
        opening = connections.connect(where, open_timeout=PATIENCE_SEC, max_size=2**24, compression=None, **more)
        self.stack = ExitStack()
        self.socket = self.stack.enter_context(opening)
        self.heard: list[Any] = []

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The next event of which this is true."""
        while True:
            event = self.socket.recv(PATIENCE_SEC)
            event = json.loads(event) if isinstance(event, str) else event
            self.heard.append(event)
            if wanted(event):
                return event

    def of_type(self, kind: str) -> Any:
        return self.until(lambda event: isinstance(event, dict) and event["type"] == kind)

    def chunk(self) -> bytes:
        return self.until(lambda event: isinstance(event, bytes) and len(event) > HEADER.size)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()


def fetched(address: str, **headers: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=PATIENCE_SEC) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_many_pages_hear_one_stream(server: LiveServer) -> None:
    with Client(server) as one, Client(server) as other:
        hello = one.of_type("hello")
        assert hello["adapters"] == ["mine"] and hello["sample_rate_hz"] == 32000 and hello["channels"] == 1
        assert hello["plays"] == []
        state = one.of_type("state")
        assert [prompt["text"] for prompt in state["prompts"]] == ["drums", "a quiet piano"] and not state["playing"]
        other.of_type("state")
        one.say(type="start")
        first, same = one.chunk(), other.chunk()
        run, _, second = HEADER.unpack_from(first)
        assert (run, second) == (state["run"], 0.0)
        samples = np.frombuffer(first, "<i2", offset=HEADER.size)
        assert len(samples) and np.abs(samples).max() > 100
        assert first == same
        status = one.of_type("status")
        assert status["playing"] and status["chunk_sec"] == 0.2 and status["delay_sec"] == pytest.approx(0.18)
        other.say(type="strength", adapter="mine", strength=0.5)
        assert one.until(lambda e: isinstance(e, dict) and e["type"] == "state" and e["strengths"] == {"mine": 0.5})
        other.say(type="stop")
        one.until(lambda e: isinstance(e, dict) and e["type"] == "state" and not e["playing"])


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        "[]",
        "null",
        '"start"',
        '{"type": "format the disk"}',
        '{"type": "start", "now": true}',
        '{"type": "strength", "adapter": "mine"}',
        '{"type": "strength", "adapter": "yours", "strength": 1}',
        '{"type": "strength", "adapter": "mine", "strength": NaN}',
        '{"type": "strength", "adapter": "mine", "strength": 1e300}',
        '{"type": "sampling", "guidance": "3"}',
        '{"type": "sampling", "temperature": -1}',
        '{"type": "prompts", "prompts": []}',
        '{"type": "prompts", "prompts": [{"text": "x", "weight": 0}]}',
        '{"type": "story", "moments": [{"second": 3, "text": "x"}]}',
        '{"type": "reset", "seed": -1}',
        '{"type": "record", "on": "yes"}',
        '{"type": "notes", "pitches": [60]}',
        '{"type": "notes", "pitches": [128]}',
        '{"type": "drums", "drums": "loud"}',
        "{" * 5000,
        b"\xff\xfe\x00",
        json.dumps({"type": "prompts", "prompts": [{"text": "x" * 2000}]}),
    ],
)
def test_a_bad_message_is_answered_and_nothing_else(server: LiveServer, message: str | bytes) -> None:
    with Client(server) as client:
        client.of_type("state")
        before = server_state(client)
        client.socket.send(message)
        told = client.of_type("error")
        assert told["what"] and "Traceback" not in told["what"]
        assert server_state(client) == before


def server_state(client: Client) -> dict[str, Any]:
    """What is set, asked by a message that changes nothing."""
    client.say(type="weight", prompt=0, weight=1.0)
    return client.of_type("state")


def test_a_message_that_is_too_long_ends_that_page_alone(server: LiveServer) -> None:
    with Client(server) as client, Client(server) as other:
        client.socket.send("x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(Exception, match=r"1009|too big|exceed"):
            client.until(lambda event: False)
        assert server_state(other)


def test_a_recording_can_be_fetched_and_nothing_else(server: LiveServer) -> None:
    with Client(server) as client:
        client.say(type="record", on=True)
        client.say(type="start")
        client.chunk()
        client.say(type="record", on=False)
        told = client.of_type("recorded")
        client.say(type="stop")
    status, body, _ = fetched(f"{server.address}recordings/{told['name']}")
    assert status == 200 and body[:4] == b"RIFF" and body == Path(told["file"]).read_bytes()
    for name in ("other.wav", "..%2F..%2Fetc%2Fpasswd", "%2e%2e/x", told["name"].replace(".wav", ".json")):
        assert fetched(f"{server.address}recordings/{name}")[0] == 404


def test_the_page_is_one_file_that_asks_for_nothing(server: LiveServer) -> None:
    status, body, headers = fetched(server.address)
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    text = body.decode()
    assert "http://" not in text and "https://" not in text and "src=" not in text and "innerHTML" not in text
    assert json.loads(fetched(server.address + "status")[1])["state"]["type"] == "state"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://", "http://["]
)
def test_pages_of_other_origins_are_refused(server: LiveServer, origin: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        Client(server, origin=origin)
    assert fetched(server.address + "status", Origin=origin)[0] == 403


def test_its_own_page_and_programs_may_play(server: LiveServer) -> None:
    for origin in (f"http://127.0.0.1:{server.port}", None):
        with Client(server, origin=origin) as client:
            assert client.of_type("hello")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "["])
def test_a_name_that_was_pointed_here_is_refused(server: LiveServer, host: str) -> None:
    assert Access(None).refusal({"host": host}, {})
    if host:
        assert fetched(server.address, Host=host)[0] in (400, 403)


def test_bound_elsewhere_it_needs_the_token() -> None:
    access = Access.for_host("0.0.0.0")
    assert access.token and len(access.token) >= 32 and Access.for_host("0.0.0.0").token != access.token
    headers = {"host": "192.168.0.9:8765", "origin": "http://192.168.0.9:8765"}
    assert access.refusal(headers, {}) and access.refusal(headers, {"token": access.token[:-1]})
    assert not access.refusal(headers, {"token": access.token})
    assert access.refusal({**headers, "origin": "http://evil.example"}, {"token": access.token})
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.0.0.5")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.9", "example.com", "")))


def test_whoever_is_quick_may_come_before_the_server_runs(server: LiveServer) -> None:
    """The address is printed when the port is open, not some time before."""
    import socket

    early = LiveServer(server.session, "127.0.0.1", 0)
    try:
        socket.create_connection(("127.0.0.1", early.port), timeout=PATIENCE_SEC).close()
    finally:
        early.socket.close()


def test_a_taken_port_is_told(server: LiveServer) -> None:
    with pytest.raises(UserError, match="cannot listen"):
        LiveServer(server.session, "127.0.0.1", server.port)


def test_keys_of_a_page_that_vanished_are_let_go(tmp_path: Path) -> None:
    base = write_debug_mrt2(tmp_path / "mrt2")
    with opened(base, None, tmp_path / "out", idle_sec=600) as session:
        server = LiveServer(session, "127.0.0.1", 0)
        thread = running(server)
        with Client(server) as other:
            with Client(server) as page:
                page.say(type="notes", pitches=[60, 64])
                eventually(lambda: session.controls.keys.held == (60, 64))
            eventually(lambda: session.controls.keys.held == ())
            with Client(server) as page:
                page.say(type="notes", pitches=[60])
                eventually(lambda: session.controls.keys.held == (60,))
                other.say(type="notes", pitches=[67])
                eventually(lambda: session.controls.keys.held == (67,))
            other.say(type="drums", drums="on")
            eventually(lambda: session.controls.drums == "on")
            assert session.controls.keys.held == (67,), "somebody else's keys stay held"
        server.should_exit = True
        thread.join(PATIENCE_SEC)


def test_the_documentation_lists_every_message() -> None:
    from finetune.live import messages

    text = (Path(__file__).parent.parent / "docs" / "live.md").read_text("utf-8")
    kinds = [kind.model_fields["type"].annotation.__args__[0] for kind in messages.Message.__args__]
    for kind, model in zip(kinds, messages.Message.__args__, strict=True):
        assert f'{{"type": "{kind}"' in text, kind
        for field in model.model_fields:
            assert f'"{field}"' in text, (kind, field)
    for line in text.splitlines():
        if line.strip().startswith('| `{"type":'):
            read_message(line.split("`")[1])  # every example is a message
