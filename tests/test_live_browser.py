"""The page in a real browser: `pytest -m browser`, with Playwright for Python and a Chromium (or WOODSHED_CHROMIUM).

WOODSHED_SCREENSHOT names a file to keep a picture of the page in.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from live_fixtures import PATIENCE_SEC, Ear, eventually, opened, write_mine

pytestmark = pytest.mark.browser
PATIENCE_MS = 1000 * PATIENCE_SEC


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playing = pytest.importorskip("playwright.sync_api", reason="the page is not tested: pip install playwright")
    names = (os.environ.get("WOODSHED_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if name and (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("the page is not tested: no Chromium here")
    with playing.sync_playwright() as tools:
        made = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def stage(mono_base: Path, tmp_path: Path) -> Iterator[Any]:
    """A session with one adapter, and the server around it."""
    from finetune.live.server import LiveServer

    quick = {"chunk_sec": 0.5, "buffer_sec": 0.5, "idle_sec": 2.0}
    with opened(mono_base, write_mine(mono_base, tmp_path), tmp_path / "out", **quick) as session:
        server = LiveServer(session, "127.0.0.1", 0)
        thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
        thread.start()
        eventually(lambda: server.started)
        yield server
        server.should_exit = True
        thread.join(PATIENCE_SEC)


@pytest.fixture
def page(browser: Any, stage: Any) -> Iterator[Any]:
    opened_page = browser.new_page(viewport={"width": 1080, "height": 860})
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
    assert page.evaluate("document.getElementById('base').textContent").endswith("mine")
    move(page, "#strength-0", -0.5)
    eventually(lambda: session.controls.strengths == {"mine": -0.5})
    moved_at = session.worker.player.second
    ear.until(lambda: ear.seconds() > moved_at + 2.5)
    page.get_by_role("button", name="Stop").click()
    eventually(lambda: not session.wanted.playing)
    played = ear.audio()
    sampler = session.worker.sampler
    sampler.set_strength("mine", 1.0)
    sampler.settings = sampler.settings.model_copy(update={"duration_sec": 30.0})
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


def test_record_gives_a_file(page: Any, stage: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Record", exact=True).click()
    wait(page, "woodshed.stats.samples > 48000")
    page.get_by_role("button", name="Stop recording").click()
    with page.expect_download() as download:
        page.locator("#recordings a").first.click()
    path = tmp_path / "got.wav"
    download.value.save_as(path)
    audio, rate_hz = soundfile.read(path)
    assert rate_hz == 32000 and len(audio) > 16000 and np.abs(audio).max() > 0.01


def test_prompts_and_stories_arrive_and_mistakes_are_shown(page: Any, stage: Any) -> None:
    session = stage.session
    wait(page, "document.querySelectorAll('#prompts .prompt').length === 2")
    move(page, "#prompts .prompt:nth-child(2) input[type=range]", 0.6)
    eventually(lambda: session.controls.prompts[1].weight == 0.6)
    page.get_by_role("button", name="Add a prompt").click()
    page.locator("#prompts .prompt:nth-child(3) input[type=text]").fill("<b>rain</b>")
    page.locator("#prompts .prompt:nth-child(3) input[type=text]").blur()
    eventually(lambda: len(session.controls.prompts) == 3)
    assert session.controls.prompts[2].text == "<b>rain</b>" and page.locator("b").count() == 0
    page.locator("#story").fill("0:00 calm piano\n0:15 add drums")
    page.get_by_role("button", name="Begin the story").click()
    eventually(lambda: [(m.second, m.text) for m in session.controls.story] == [(0, "calm piano"), (15, "add drums")])
    page.locator("#story").fill("0:10 too late")
    page.get_by_role("button", name="Begin the story").click()
    wait(page, "document.getElementById('problem').textContent.includes('begins at second 0')")
    move(page, "#chaos", 0.0)
    eventually(lambda: session.controls.temperature == 0.6 and session.controls.top_k == 25)


def test_a_closed_tab_frees_the_model(page: Any, stage: Any) -> None:
    page.get_by_role("button", name="Play").click()
    wait(page, "woodshed.stats.samples > 16000")
    page.close()
    eventually(lambda: stage.session.worker.sampler is None and not stage.session.wanted.playing)


def test_the_picture_of_the_page(browser: Any) -> None:
    """The starter with its own window, for the documentation: nothing on the page may be cut off or run over."""
    from configs.live import LiveSettings
    from finetune.live.run import open_session
    from finetune.live.server import LiveServer

    prompts = ["slow piano ballad, warm", "energetic drums and bass", "acoustic guitar, calm"]
    session = open_session([], LiveSettings(precision="int8", idle_sec=600), base="starter", prompts=prompts)
    server = LiveServer(session, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        page = browser.new_page(viewport={"width": 1080, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.address)
        page.get_by_role("button", name="Play").click()
        wait(page, "woodshed.stats.samples > 64000")
        session.set_prompts([(prompts[0], 1.0), (prompts[1], 0.45), (prompts[2], 0.0)])
        page.locator("#story").fill("0:00 calm piano\n0:15 add drums\n0:40 only strings")
        wait(page, "woodshed.stats.samples > 200000 && document.getElementById('latency').textContent !== '–'")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if os.environ.get("WOODSHED_SCREENSHOT"):
            page.screenshot(path=os.environ["WOODSHED_SCREENSHOT"], full_page=True)
        page.set_viewport_size({"width": 420, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SEC)
        session.close()
