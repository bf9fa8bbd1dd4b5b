"""The page in a real browser: `pytest -m browser`, with Playwright for Python and a Chromium (or WOODSHED_CHROMIUM).

With WOODSHED_SCREENSHOT, a picture of the page at play is kept in the file of that name, and one of the keys beside it.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapter_fixtures import write_adapter
from live_fixtures import PATIENCE_SEC, Ear, eventually, opened, write_mine

from data_prep.magenta_rt2.debug_base import write_debug_mrt2

pytestmark = pytest.mark.browser
PATIENCE_MS = 1000 * PATIENCE_SEC
PICTURE = Path(os.environ["WOODSHED_SCREENSHOT"]) if "WOODSHED_SCREENSHOT" in os.environ else None
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
"""Chromium's sandbox does not start for root in a container, whose /dev/shm may be small."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playing = pytest.importorskip("playwright.sync_api", reason="the page is not tested: pip install playwright")
    names = (os.environ.get("WOODSHED_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if name and (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("the page is not tested: no Chromium here")
    with playing.sync_playwright() as tools:
        made = tools.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


@contextmanager
def served(session: Any) -> Iterator[Any]:
    """The server around a session."""
    from finetune.live.server import LiveServer

    server = LiveServer(session, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SEC)


@pytest.fixture
def stage(mono_base: Path, tmp_path: Path) -> Iterator[Any]:
    """A session with two adapters, and the server around it."""
    quick = {"chunk_sec": 0.5, "buffer_sec": 0.5, "idle_sec": 2.0}
    adapters = [write_mine(mono_base, tmp_path), write_adapter(tmp_path / "other", mono_base, size=1.0)]
    with opened(mono_base, adapters, tmp_path / "out", **quick) as session, served(session) as server:
        yield server


@pytest.fixture
def page(browser: Any, stage: Any) -> Iterator[Any]:
    with opened_page(browser, stage) as shown:
        yield shown


@contextmanager
def opened_page(browser: Any, stage: Any) -> Iterator[Any]:
    """A page on which nothing may go wrong unseen."""
    opened_page = browser.new_page(viewport={"width": 1120, "height": 860})
    faults: list[str] = []
    opened_page.on("pageerror", lambda error: faults.append(str(error)))
    opened_page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    opened_page.goto(stage.address)
    opened_page.set_default_timeout(PATIENCE_MS)
    yield opened_page
    assert not faults
    if not opened_page.is_closed():
        opened_page.close()


def wait(page: Any, expression: str) -> None:
    """Asked again and again from outside: the page itself may not evaluate text."""
    eventually(lambda: page.evaluate(expression))


def move(page: Any, selector: str, value: float) -> None:
    """As a hand moves a fader."""
    page.locator(selector).evaluate(
        "(fader, value) => { fader.value = value; fader.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )


def test_it_plays_and_a_fader_changes_the_tokens(page: Any, stage: Any) -> None:
    session = stage.session
    ear = Ear(session)
    page.get_by_role("button", name="Play").click()
    wait(page, "woodshed.stats.samples > 32000 && woodshed.stats.peak > 0.01")
    assert page.evaluate("document.getElementById('base').textContent").endswith("mine + other")
    move(page, "#strength-0", -0.5)
    eventually(lambda: session.controls.strengths == {"mine": -0.5, "other": 1.0})
    moved_at = session.worker.player.second
    ear.until(lambda: ear.seconds() > moved_at + 2.5)
    page.get_by_role("button", name="Stop").click()
    eventually(lambda: not session.wanted.playing)
    played = ear.audio()
    sampler = session.worker.sampler
    session.close()  # else the worker may still be busy with the same model
    sampler.set_strength("mine", 1.0)
    seconds = played.shape[1] / 32000 + 0.5
    sampler.settings = sampler.settings.model_copy(update={"duration_sec": seconds})
    codes = sampler.codes(["drums"], seeds=[0])[0]
    unmoved = sampler.codec.decode(codes)[:, : played.shape[1]]
    before = round(0.5 * moved_at * 32000)
    torch.testing.assert_close(played[:, :before], unmoved[:, :before], rtol=0, atol=2e-6)
    heard = sampler.codec.encode([played])[0]
    assert (heard[:, -50:] != codes[:, heard.shape[1] - 50 : heard.shape[1]]).mean() > 0.2
    assert (played - unmoved)[:, -16000:].abs().max() > 1e-3


def test_what_reaches_the_speaker_is_the_stream(page: Any, stage: Any) -> None:
    """The audio clock runs and the sound at its end is no silence."""
    page.get_by_role("button", name="Play").click()
    wait(page, "scope !== null && woodshed.stats.samples > 32000")
    loud = "const w = new Float32Array(2048); scope.getFloatTimeDomainData(w); return Math.max(...w) > 0.003;"
    wait(page, f"(() => {{ {loud} }})()")
    first = page.evaluate("context.currentTime")
    wait(page, f"context.currentTime > {first} + 0.5")
    page.get_by_role("button", name="Stop", exact=True).click()
    wait(page, "context.state === 'suspended'")


def test_each_adapter_has_a_fader_of_its_own(page: Any, stage: Any) -> None:
    wait(page, "document.querySelectorAll('#strengths input').length === 2")
    move(page, "#strength-1", 1.5)
    eventually(lambda: stage.session.controls.strengths == {"mine": 1.0, "other": 1.5})
    move(page, "#strength-0", -0.5)
    eventually(lambda: stage.session.controls.strengths == {"mine": -0.5, "other": 1.5})
    stage.session.set_strength("other", 0.25)  # moved elsewhere: this page follows
    wait(page, "document.getElementById('strength-1').value === '0.25'")


def test_record_gives_a_file_with_its_settings(page: Any, stage: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Record", exact=True).click()
    wait(page, "woodshed.stats.samples > 48000")
    move(page, "#guidance", 2.0)
    wait(page, "document.getElementById('latency').textContent !== '–'")
    page.get_by_role("button", name="Stop recording").click()
    with page.expect_download() as download:
        page.locator("#recordings a").first.click()
    path = tmp_path / "got.wav"
    download.value.save_as(path)
    audio, rate_hz = soundfile.read(path)
    assert rate_hz == 32000 and len(audio) > 16000 and np.abs(audio).max() > 0.01
    with soundfile.SoundFile(path) as file:
        settings = json.loads(file.comment)
    assert (
        settings["seed"] == 0 and settings["guidance"] == 3.0 and settings["strengths"] == {"mine": 1.0, "other": 1.0}
    )
    moves = json.loads(next((tmp_path / "out").glob("*.json")).read_text("utf-8"))["moves"]
    assert [one["guidance"] for one in moves] == [2.0]


def test_prompts_cross_fade(page: Any, stage: Any) -> None:
    """The model follows what the faders say, and gets there in the time that the page says."""
    session = stage.session
    wait(page, "document.querySelectorAll('#prompts .prompt').length === 2")
    page.locator("#fade").fill("1")
    page.locator("#fade").blur()
    page.get_by_role("button", name="Play").click()
    wait(page, "woodshed.stats.samples > 16000")
    move(page, "#prompts .prompt:nth-child(2) input[type=range]", 1.0)
    eventually(lambda: session.controls.prompts[1].weight == 1.0 and session.controls.fade_sec == 1.0)
    player = session.worker.player
    eventually(lambda: player.mix.after == [0.5, 0.5])
    begun = player.mix.start_sec
    assert player.mix.shares(begun) == [1.0, 0.0] and player.mix.shares(begun + 0.5) == [0.75, 0.25]
    assert player.mix.shares(begun + 1) == [0.5, 0.5]


def test_prompts_arrive_as_they_are_written(page: Any, stage: Any) -> None:
    session = stage.session
    wait(page, "document.querySelectorAll('#prompts .prompt').length === 2")
    page.get_by_role("button", name="Add a prompt").click()
    page.locator("#prompts .prompt:nth-child(3) input[type=text]").fill("<b>rain</b>")
    page.locator("#prompts .prompt:nth-child(3) input[type=text]").blur()
    eventually(lambda: len(session.controls.prompts) == 3)
    assert session.controls.prompts[2].text == "<b>rain</b>" and page.locator("b:text('rain')").count() == 0
    page.locator("#prompts .prompt:nth-child(2) .remove").click()
    eventually(lambda: [one.text for one in session.controls.prompts] == ["drums", "<b>rain</b>"])


def test_a_story_is_a_list_of_moments(page: Any, stage: Any) -> None:
    session = stage.session
    texts, times = (page.locator(f"#moments li input:nth-of-type({n})") for n in (2, 1))
    texts.nth(0).fill("calm piano")
    texts.nth(1).fill("add drums")
    times.nth(1).fill("0:01")
    page.get_by_role("button", name="Add a moment").click()
    assert times.nth(2).input_value() == "0:16"
    page.get_by_role("button", name="Begin the story").click()
    eventually(lambda: [(m.second, m.text) for m in session.controls.story] == [(0, "calm piano"), (1, "add drums")])
    page.get_by_role("button", name="Play").click()
    wait(page, "document.querySelectorAll('#moments li')[1].className === 'now'")
    times.nth(0).fill("0:10")
    page.get_by_role("button", name="Begin the story").click()
    wait(page, "document.getElementById('problem').textContent.includes('begins at second 0')")
    times.nth(0).fill("soon")
    page.get_by_role("button", name="Begin the story").click()
    wait(page, "document.getElementById('problem').textContent.includes('such as 0:15')")
    page.get_by_role("button", name="End it").click()
    eventually(lambda: not session.controls.story)


def test_chaos_turns_the_two_behind_it(page: Any, stage: Any) -> None:
    session = stage.session
    wait(page, "state !== null")
    move(page, "#chaos", 0.0)
    eventually(lambda: (session.controls.temperature, session.controls.top_k) == (0.6, 25))
    wait(
        page,
        "document.getElementById('temperature').value === '0.6' && document.getElementById('top_k').value === '25'",
    )
    box = page.locator(".knob.big").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1] - 200)
    page.mouse.up()
    eventually(lambda: (session.controls.temperature, session.controls.top_k) == (1.4, 2500))
    move(page, "#temperature", 0.9)
    eventually(lambda: (session.controls.temperature, session.controls.top_k) == (0.9, 2500))


def test_falling_behind_is_said(page: Any, stage: Any) -> None:
    page.get_by_role("button", name="Play").click()
    wait(page, "woodshed.stats.samples > 16000")
    generation = stage.session.worker.player.music.generation
    quick = generation.advance

    def slow(n_frames: int) -> None:
        time.sleep(1.5 * n_frames / 50)
        quick(n_frames)

    generation.advance = slow
    wait(page, "document.getElementById('hint').textContent.includes('cannot keep up')")
    wait(page, "woodshed.stats.gaps > 0 && document.getElementById('gaps').textContent !== '0 / 0'")
    assert page.evaluate("document.getElementById('factor').className") == "low"


def test_a_closed_tab_frees_the_model(page: Any, stage: Any) -> None:
    page.get_by_role("button", name="Play").click()
    wait(page, "woodshed.stats.samples > 16000")
    page.close()
    eventually(lambda: stage.session.worker.sampler is None and not stage.session.wanted.playing)


def test_two_pages_move_together(page: Any, stage: Any, browser: Any) -> None:
    with opened_page(browser, stage) as other:
        wait(other, "state !== null")
        move(page, "#guidance", 5.0)
        wait(other, "document.getElementById('guidance').value === '5'")
        page.get_by_role("button", name="Play").click()
        wait(other, "document.getElementById('play').getAttribute('aria-label') === 'Stop'")
        wait(other, "woodshed.stats.samples > 16000")


def test_keys_chords_and_drums(browser: Any, tmp_path: Path) -> None:
    base = write_debug_mrt2(tmp_path / "mrt2")
    with opened(base, None, tmp_path / "out") as session, served(session) as stage, opened_page(browser, stage) as page:
        page.wait_for_selector("#keyboard .key >> nth=0")
        held = lambda: session.controls.keys.held  # noqa: E731
        page.locator('[data-pitch="60"]').hover(position={"x": 6, "y": 110})
        page.mouse.down()
        eventually(lambda: held() == (60,))
        wait(page, "document.querySelector('[data-pitch=\"60\"]').classList.contains('held')")
        page.mouse.up()
        eventually(lambda: held() == ())
        page.locator("#chord").select_option("minor chord")
        page.locator("h1").click()
        page.keyboard.down("d")  # the computer's own keyboard: E
        eventually(lambda: held() == (64, 67, 71))
        if PICTURE is not None:
            wait(page, "document.querySelectorAll('.key.held').length === 3")
            page.locator("#keys-panel").screenshot(path=PICTURE.with_name(f"{PICTURE.stem}-keys.png"))
        page.keyboard.up("d")
        eventually(lambda: held() == ())
        page.locator("#silent").check()
        page.get_by_role("radio", name="off").click()
        eventually(lambda: session.controls.keys.others == "silent" and session.controls.drums == "off")
        page.evaluate("heard({ data: [0x90, 57, 100] })")  # what a MIDI keyboard says
        eventually(lambda: held() == (57, 60, 64))
        page.evaluate("heard({ data: [0x80, 57, 0] })")
        eventually(lambda: held() == ())
        for width in (1120, 760, 420):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(PICTURE is None, reason="WOODSHED_SCREENSHOT names no file for a picture")
def test_the_picture_of_the_page(browser: Any, tmp_path: Path) -> None:
    """The starter with two small random adapters, for the documentation."""
    from adapters.sampler import AdapterSpec
    from configs.live import LiveSettings
    from data_prep.base_files import resolve_base
    from finetune.live.run import open_session

    prompts = ["slow piano ballad, warm", "energetic drums and bass", "acoustic guitar, calm"]
    folder = resolve_base("starter").folder
    adapters = [AdapterSpec(write_adapter(tmp_path / name, folder, size=0.02)) for name in ("my-trio", "night-tapes")]
    settings = LiveSettings(precision="int8", idle_sec=600)
    session = open_session(adapters, settings, base="starter", prompts=prompts, folder=tmp_path)
    try:
        with served(session) as stage, opened_page(browser, stage) as page:
            page.set_viewport_size({"width": 1120, "height": 640})
            page.get_by_role("button", name="Record", exact=True).click()
            page.get_by_role("button", name="Play").click()
            wait(page, "woodshed.stats.samples > 96000")
            page.get_by_role("button", name="Stop recording").click()
            move(page, "#strength-1", 0.35)
            for number, text in enumerate(("calm piano", "add drums and bass")):
                page.locator("#moments li").nth(number).locator("input").nth(1).fill(text)
            page.locator("h1").click()
            wait(page, "woodshed.stats.samples > 200000")
            move(page, "#prompts .prompt:nth-child(2) input[type=range]", 0.45)
            wait(page, "woodshed.stats.samples > 300000")
            move(page, "#chaos", 0.6)
            wait(page, "woodshed.stats.samples > 400000 && document.getElementById('latency').textContent !== '–'")
            page.screenshot(path=PICTURE, full_page=True)
    finally:
        session.close()
