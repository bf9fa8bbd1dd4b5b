"""OSC: controllers turn the same knobs as the page, under the same checks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_fixtures import Ear, eventually, opened, write_mine

pytest.importorskip("pythonosc", reason="OSC is not tested: install the extra `osc`")
from pythonosc.udp_client import SimpleUDPClient

from configs.errors import UserError
from finetune.live.osc import OscInput, fields_of
from finetune.live.session import LiveSession


@pytest.fixture
def session(mono_base: Path, tmp_path: Path) -> Iterator[LiveSession]:
    with opened(mono_base, write_mine(mono_base, tmp_path), tmp_path) as made:
        yield made


def test_addresses_turn_knobs_and_mistakes_are_told(session: LiveSession) -> None:
    ear = Ear(session)
    osc = OscInput(session, "127.0.0.1", 0)
    client = SimpleUDPClient("127.0.0.1", osc.server.server_address[1])
    try:
        client.send_message("/woodshed/strength", ["mine", 0.5])
        client.send_message("/woodshed/guidance", 2.0)
        client.send_message("/woodshed/weight", [1, 0.75])
        client.send_message("/woodshed/buffer_sec", 0.4)
        eventually(lambda: session.controls.buffer_sec == 0.4)
        assert session.controls.strengths == {"mine": 0.5} and session.controls.guidance == 2.0
        assert session.controls.prompts[1].weight == 0.75
        client.send_message("/woodshed/strength", ["yours", 0.5])
        client.send_message("/elsewhere", 1)
        client._sock.sendto(b"no OSC at all", osc.server.server_address)
        client.send_message("/woodshed/prompts", ["rain", 1.0, "sea", 0.5])
        eventually(lambda: len(session.controls.prompts) == 2 and session.controls.prompts[0].text == "rain")
        assert len(ear.of_type("error")) == 2
    finally:
        client._sock.close()
        osc.close()


def test_keys_come_as_the_pitches_that_are_held() -> None:
    assert fields_of("/woodshed/notes", [60, 64.0]) == {"type": "notes", "pitches": [60, 64]}
    assert fields_of("/woodshed/notes", []) == {"type": "notes", "pitches": []}
    assert fields_of("/woodshed/drums", ["off"]) == {"type": "drums", "drums": "off"}


@pytest.mark.parametrize(
    ("address", "values"),
    [
        ("/woodshed/strength", ["mine", "loud"]),
        ("/woodshed/start", [1]),
        ("/woodshed/reset", [float("inf")]),
        ("/woodshed/prompts", ["a"]),
        ("/other/start", []),
    ],
)
def test_what_means_nothing_is_refused(address: str, values: list) -> None:
    with pytest.raises(UserError, match="means nothing"):
        fields_of(address, values)
