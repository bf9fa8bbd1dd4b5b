"""A live session: one endless piece that follows its controls, paces itself, records, and gives its memory back."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from live_fixtures import Ear, eventually, opened, write_mine

from configs.errors import UserError
from configs.live import LiveSettings
from configs.sample import SampleSettings
from finetune.live.controls import Controls, Moment, Weighted, chaos, checked_prompts, checked_story
from finetune.live.pace import hint
from finetune.live.play_clock import PlayClock
from finetune.live.player import Player, TextStates
from finetune.live.run import sample_settings
from finetune.live.session import LiveSession


@pytest.fixture(scope="module")
def mine(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mine(mono_base, tmp_path_factory.mktemp("live"))


@pytest.fixture
def session(mono_base: Path, mine: Path, tmp_path: Path) -> Iterator[LiveSession]:
    with opened(mono_base, mine, tmp_path) as made:
        yield made


def test_it_plays_what_sample_plays(session: LiveSession) -> None:
    assert session.worker.sampler is not None
    ear = Ear(session)
    session.start()
    ear.until(lambda: ear.seconds() > 1.2)
    sampler = session.worker.sampler
    session.close()  # else the worker may still be busy with the same model
    played = ear.audio()
    sampler.settings = sampler.settings.model_copy(update={"duration_sec": 3.0})
    whole = sampler.sample(["drums"], seeds=[0])[0].waveform
    torch.testing.assert_close(played, whole[:, : played.shape[1]], rtol=0, atol=2e-6)
    seconds = [chunk.second for chunk in ear.chunks]
    assert seconds == sorted(seconds) and [chunk.number for chunk in ear.chunks] == list(range(len(ear.chunks)))


@pytest.mark.parametrize("control", ["strength", "prompts", "sampling", "chaos", "story"])
def test_every_control_changes_the_music_from_then_on(session: LiveSession, control: str) -> None:
    turn = {
        "strength": lambda: session.set_strength("mine", -2.0),
        "prompts": lambda: session.set_prompts([("drums", 0.2), ("a quiet piano", 1.0)]),
        "sampling": lambda: session.set_sampling(guidance=1.0, temperature=0.2),
        "chaos": lambda: session.set_chaos(0.0),
        "story": lambda: session.set_story([(0.0, "a quiet piano")]),
    }[control]
    assert session.worker.sampler is not None and session.worker.states is not None
    straight = play_by_hand(session, 6, lambda number: None)
    turned = play_by_hand(session, 6, lambda number: turn() if number == 2 else None)
    torch.testing.assert_close(torch.cat(turned[:2], dim=1), torch.cat(straight[:2], dim=1), rtol=0, atol=2e-6)
    assert (torch.cat(turned[2:], dim=1) - torch.cat(straight[2:], dim=1)).abs().max() > 1e-3


def play_by_hand(session: LiveSession, n_chunks: int, before_chunk: Callable[[int], object]) -> list[torch.Tensor]:
    """Chunks from a player of our own on this thread, the session's worker being idle."""
    before = session.controls
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(session.worker.sampler, session.worker.states, lambda: session.controls, seed=5)
    chunks = []
    for number in range(n_chunks):
        before_chunk(number)
        chunks.append(player.next_chunk().waveform)
    player.close()
    session.wanted.controls = before
    return chunks


def test_a_control_moved_inside_a_chunk_counts_within_it(session: LiveSession) -> None:
    session.set_pace(chunk_sec=2.0)
    heard: list[float] = []
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(
        session.worker.sampler,
        session.worker.states,
        lambda: session.controls,
        seed=0,
        applied=lambda at, _: heard.append(at),
    )
    player.next_chunk()
    inner = player.music.generation.direct
    looks = []

    def direct(second: float) -> bool:
        looks.append(second)
        if len(looks) == 4:
            session.set_sampling(temperature=0.5)
        return inner(second)

    player.music.generation.direct = direct
    player.next_chunk()
    assert heard == [looks[3]] and looks[0] < looks[3] < looks[-1]


def test_a_story_moves_on_by_itself(session: LiveSession) -> None:
    session.set_story([(0.0, "drums"), (0.6, "a quiet piano"), (1.2, "drums")])
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(session.worker.sampler, session.worker.states, lambda: session.controls, seed=0)
    followed = []
    for _ in range(9):
        second = player.next_chunk().second
        shares = player.mix.shares(second + 0.4)
        followed.append(player.mix.texts[shares.index(max(shares))])
    assert [text for text, other in zip(followed, ["", *followed], strict=False) if text != other] == [
        "drums",
        "a quiet piano",
        "drums",
    ]


def test_it_waits_for_the_ear(session: LiveSession) -> None:
    """The debug base is far faster than real time: without a pace it would be minutes ahead."""
    ear = Ear(session)
    session.start()
    begun = time.monotonic()
    ear.until(lambda: len(ear.chunks) > 8)
    ahead = ear.seconds() - (time.monotonic() - begun)
    assert ahead < 0.2 + 0.2 + 0.2


def test_stop_is_silence_and_start_goes_on(session: LiveSession) -> None:
    ear = Ear(session)
    session.start()
    ear.until(lambda: len(ear.chunks) > 2)
    session.stop()
    time.sleep(0.5)  # the chunk in progress may still come
    before = len(ear.chunks)
    time.sleep(0.5)
    assert len(ear.chunks) == before
    session.start()
    ear.until(lambda: len(ear.chunks) > before)
    assert ear.chunks[before].number == before and ear.chunks[before].run == 1


def test_reset_begins_another_piece_and_the_same_seed_the_same(session: LiveSession) -> None:
    ear = Ear(session)
    session.start()
    ear.until(lambda: ear.seconds() > 0.6)
    session.reset()
    ear.until(lambda: len([c for c in ear.chunks if c.run == 2]) > 3)
    session.reset(seed=9)
    ear.until(lambda: len([c for c in ear.chunks if c.run == 3]) > 3)
    session.stop()
    first, again, other = (ear.audio(run) for run in (1, 2, 3))
    n = min(first.shape[1], again.shape[1], other.shape[1])
    torch.testing.assert_close(first[:, :n], again[:, :n], rtol=0, atol=2e-6)
    assert (first[:, :n] - other[:, :n]).abs().max() > 1e-3
    assert session.state()["seed"] == 9


def test_a_recording_is_what_was_played_with_its_settings_and_moves(session: LiveSession, tmp_path: Path) -> None:
    ear = Ear(session)
    session.record(True)
    session.start()
    ear.until(lambda: ear.seconds() > 0.5)
    session.set_strength("mine", 0.25)
    ear.until(lambda: ear.seconds() > 1.2)
    session.record(False)
    told = ear.until(lambda: ear.of_type("recorded"))[0]
    session.stop()
    audio, rate_hz = soundfile.read(told["file"], always_2d=True, dtype="float32")
    played = ear.audio()[:, : len(audio)].clamp(-1, 1)
    assert (
        rate_hz == 32000
        and len(audio) >= 1.2 * 32000
        and told["seconds"] == pytest.approx(len(audio) / rate_hz, abs=0.01)
    )
    torch.testing.assert_close(torch.from_numpy(audio.T), played, rtol=0, atol=2e-7 + 2**-23)
    tags = json.loads(soundfile.SoundFile(told["file"]).comment)
    assert (
        tags["seed"] == 0
        and tags["prompts"][0] == {"text": "drums", "weight": 1.0}
        and tags["strengths"] == {"mine": 1.0}
    )
    story = json.loads(Path(told["file"]).with_suffix(".json").read_text())
    assert [move["strengths"]["mine"] for move in story["moves"]] == [0.25]
    assert 0.3 < story["moves"][0]["second"] < story["duration_sec"]
    assert not list(tmp_path.glob(".*.part"))


def test_a_full_disk_ends_the_recording_and_not_the_music(session: LiveSession, tmp_path: Path, monkeypatch) -> None:
    ear = Ear(session)
    session.record(True)
    session.start()
    ear.until(lambda: len(ear.chunks) > 3 and session.recorder.is_on)

    def full(self: soundfile.SoundFile, data: object) -> None:
        raise soundfile.LibsndfileError(2, "cannot write: ")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    told = ear.until(lambda: ear.of_type("error"))[0]
    assert "could not be written" in told["what"] and "record again" in told["fix"]
    before = len(ear.chunks)
    ear.until(lambda: len(ear.chunks) > before + 2 and ear.of_type("recorded"))
    assert session.wanted.playing and not session.wanted.recording
    assert soundfile.info(ear.of_type("recorded")[0]["file"]).frames > 0  # what was written before is kept


def test_a_recording_that_cannot_be_closed_is_not_thrown_away(
    session: LiveSession, tmp_path: Path, monkeypatch
) -> None:
    ear = Ear(session)
    session.record(True)
    session.start()
    ear.until(lambda: len(ear.chunks) > 3 and session.recorder.is_on)
    close = soundfile.SoundFile.close

    def fails(self: soundfile.SoundFile) -> None:
        close(self)
        raise soundfile.LibsndfileError(2, "cannot close: ")

    with monkeypatch.context() as patched:
        patched.setattr(soundfile.SoundFile, "close", fails)
        session.record(False)
        told = ear.until(lambda: ear.of_type("error"))[0]
    part = Path(told["where"].rpartition("what was recorded is in ")[2])
    assert soundfile.info(part).frames > 0
    before = len(ear.chunks)
    ear.until(lambda: len(ear.chunks) > before + 2)  # the music goes on


def test_a_folder_that_cannot_be_written_is_told_and_the_music_plays(session: LiveSession, tmp_path: Path) -> None:
    session.recorder.folder = tmp_path / "taken"
    session.recorder.folder.write_text("a file, no folder")
    ear = Ear(session)
    session.record(True)
    session.start()
    ear.until(lambda: ear.of_type("error") and len(ear.chunks) > 2)
    assert session.wanted.playing and not session.wanted.recording and not session.recorder.is_on


def test_a_control_moved_while_it_rests_is_not_late(session: LiveSession) -> None:
    ear = Ear(session)
    session.start()
    ear.until(lambda: len(ear.chunks) > 2)
    session.stop()
    session.set_sampling(temperature=0.9)
    time.sleep(1.5)
    session.start()
    before = len(ear.chunks)
    ear.until(lambda: len(ear.chunks) > before + 2)
    assert (session.pace().control_latency_sec or 0.0) < 1.5


def test_the_last_one_to_leave_frees_the_model(mono_base: Path, tmp_path: Path) -> None:
    with opened(mono_base, None, tmp_path, idle_sec=0.3) as session:
        first, second = Ear(session), Ear(session)
        session.start()
        session.record(True)
        first.until(lambda: len(first.chunks) > 2)
        first.leave()
        time.sleep(0.6)
        assert session.worker.sampler is not None and session.wanted.playing
        second.leave()
        eventually(lambda: session.worker.sampler is None)
        assert session.worker.player is None and not session.wanted.playing and not session.pace().loaded
        eventually(lambda: session.recorder.finished)  # what was being recorded is whole
        third = Ear(session)
        session.start()
        third.until(lambda: third.of_type("loading") and third.chunks)


def test_a_failure_is_told_and_play_begins_anew(session: LiveSession) -> None:
    ear = Ear(session)
    session.start()
    ear.until(lambda: len(ear.chunks) > 1)
    assert session.worker.player is not None

    def broken() -> None:
        raise UserError("the model's output is not a number", fix="try fp32")

    session.worker.player.next_chunk = broken  # type: ignore[method-assign]
    told = ear.until(lambda: ear.of_type("error"))[0]
    assert told["what"].startswith("the model's output") and told["fix"] == "try fp32"
    assert not session.wanted.playing
    session.start()
    ear.until(lambda: [chunk for chunk in ear.chunks if chunk.run == 2])


def test_mistakes_are_refused_at_once_and_change_nothing(session: LiveSession) -> None:
    before = session.controls
    for mistake in (
        lambda: session.set_strength("yours", 1.0),
        lambda: session.set_strength("mine", float("nan")),
        lambda: session.set_strength("mine", 1e9),
        lambda: session.set_prompts([]),
        lambda: session.set_prompts([("x", 0.0)]),
        lambda: session.set_prompts([("x", 1.5e308), ("y", 1.5e308)]),
        lambda: session.set_prompts([("x" * 5000, 1.0)]),
        lambda: session.set_weight(7, 1.0),
        lambda: session.set_sampling(guidance=0.5),
        lambda: session.set_sampling(top_p=1.5),
        lambda: session.set_sampling(port=80),
        lambda: session.set_chaos(2.0),
        lambda: session.set_pace(chunk_sec=0.0),
        lambda: session.set_story([(1.0, "late")]),
        lambda: session.set_story([(0.0, "a"), (0.0, "b")]),
    ):
        with pytest.raises(UserError):
            mistake()
    assert session.controls == before


def test_chaos_has_the_usual_in_its_middle() -> None:
    usual = SampleSettings()
    assert chaos(0.5) == {"temperature": usual.temperature, "top_k": usual.top_k}
    assert chaos(0.0) == {"temperature": 0.6, "top_k": 25} and chaos(1.0) == {"temperature": 1.4, "top_k": 2500}


def test_the_clock_counts_every_gap() -> None:
    now = [100.0]
    clock = PlayClock(0.5, lambda: now[0])
    clock.push(0.3)
    now[0] += 5.0
    assert clock.level_sec == pytest.approx(0.3) and not clock.gaps  # it has not begun
    clock.push(0.4)
    now[0] += 0.5
    assert clock.level_sec == pytest.approx(0.2)
    clock.pause()
    now[0] += 50.0
    clock.resume()
    assert clock.level_sec == pytest.approx(0.2) and clock.gaps == 0
    now[0] += 1.0
    assert clock.level_sec == 0 and clock.gaps == 1 and clock.gap_sec == pytest.approx(0.8)
    clock.push(0.3)
    now[0] += 0.2
    assert clock.level_sec == pytest.approx(0.3) and clock.gap_sec == pytest.approx(1.0)  # waits for 0.5 s
    clock.push(0.2)
    now[0] += 0.1
    assert clock.level_sec == pytest.approx(0.4) and clock.gaps == 1


@pytest.mark.parametrize("moved", ["resumed", "a shorter buffer"])
def test_the_clock_begins_without_more_music_where_enough_is_there(moved: str) -> None:
    """Else the one who makes music would wait for the ear, and the ear for music."""
    now = [0.0]
    clock = PlayClock(0.5, lambda: now[0])
    if moved == "resumed":
        clock.pause()
        clock.push(0.6)
        clock.resume()
    else:
        clock.push(0.4)
        clock.begin_sec = 0.3
    assert clock.hears
    before = clock.level_sec
    now[0] += 0.2
    assert clock.level_sec == pytest.approx(before - 0.2)


def test_hints_name_what_helps() -> None:
    controls = Controls(checked_prompts([Weighted("a"), Weighted("b")]))
    assert hint(2.0, False, controls, "fp16", 20.0) == "" and hint(None, False, controls, "fp16", 20.0) == ""
    slow = hint(0.7, False, controls, "fp16", 20.0)
    assert all(word in slow for word in ("0.70", "int8", "window", "fewer prompts", "guidance", "smaller base"))
    assert "int8" not in hint(0.7, False, controls, "int8", 20.0)
    assert "guidance" not in hint(0.7, False, controls, "int8", 20.0, guided_by_condition=True)
    assert "ran dry" in hint(3.0, True, controls, "int8", 5.0)


def test_a_story_must_begin_and_rise() -> None:
    assert checked_story([]) == ()
    for moments in ([Moment(1.0, "a")], [Moment(0.0, "a"), Moment(0.0, "b")], [Moment(0.0, "x" * 2000)]):
        with pytest.raises(UserError):
            checked_story(moments)


def test_settings_begin_as_sample_has_them() -> None:
    usual, live = SampleSettings(), sample_settings(LiveSettings())
    for name in ("guidance", "temperature", "top_k", "top_p", "seed", "precision", "device"):
        assert getattr(usual, name) == getattr(live, name)


def test_text_states_are_kept_and_bounded(session: LiveSession) -> None:
    assert session.worker.sampler is not None
    states = TextStates(session.worker.sampler)
    first = states["drums"]
    assert states["drums"] is first
    for number in range(80):
        states[f"text {number}"]
    assert len(states._kept) == 64 and states["drums"] is not first
