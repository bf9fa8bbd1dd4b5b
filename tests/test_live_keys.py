"""Notes and drums by hand: held, struck, tapped between two looks, and heard from the next frame on."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from live_fixtures import Ear, opened
from torch import Tensor

from adapters.decode.frame_values import FrameValues
from adapters.family.magenta_rt2.conditions import (
    DRUMS,
    NO_DRUMS,
    NOTE_HELD,
    NOTE_OFF,
    NOTE_ONSET,
    UNKNOWN,
    MagentaConditions,
)
from adapters.played_notes import TAP_FRAMES, drums_from_now, notes_from_now
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.magenta_rt2.debug_base import write_debug_mrt2
from finetune.live.keys import Keys
from finetune.live.player import Player
from finetune.live.session import LiveSession


@pytest.fixture(scope="module")
def magenta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_debug_mrt2(tmp_path_factory.mktemp("bases") / "mrt2")


@pytest.fixture(scope="module")
def sampler(magenta: Path) -> Sampler:
    settings = SampleSettings.model_validate(
        {"duration_sec": 1.2, "window_sec": 0.4, "overlap_sec": 0.2, "precision": "fp32"}
    )
    return hearing(Sampler.load(resolve_base(str(magenta)), (), settings))


def hearing(sampler: Sampler) -> Sampler:
    """A random model barely hears one note among 132 slots: let it hear them louder, so that few frames tell."""
    lm: Any = sampler.engine
    with torch.no_grad():
        lm.lm.source.controls.weight.mul_(100)
    return sampler


@pytest.fixture
def session(magenta: Path, tmp_path: Path) -> Iterator[LiveSession]:
    with opened(magenta, None, tmp_path) as made:
        assert made.worker.sampler is not None
        hearing(made.worker.sampler)
        yield made


def test_a_key_that_was_tapped_between_two_looks_was_struck() -> None:
    before = Keys().holding([60])
    after = before.holding([60, 64]).holding([60]).holding([60, 67])
    assert after.held == (60, 67) and after.struck_since(before) == {64, 67}
    again = after.holding([60]).holding([60, 67])
    assert again.held == after.held and again.struck_since(after) == {67}


@pytest.mark.parametrize("pitches", [[-1], [128]])
def test_a_pitch_that_does_not_exist_is_refused(pitches: list[int]) -> None:
    with pytest.raises(UserError, match="pitch"):
        Keys().holding(pitches)


def test_notes_are_struck_once_and_then_held() -> None:
    frames = notes_from_now({60, 64}, {64, 67}, silent=True)
    assert frames[:, 60].unique().tolist() == [NOTE_HELD]
    assert frames[:, 64].tolist() == [NOTE_ONSET] + [NOTE_HELD] * TAP_FRAMES
    assert frames[:, 67].tolist() == [NOTE_ONSET, *[NOTE_HELD] * (TAP_FRAMES - 1), NOTE_OFF]
    assert frames[:, 61].unique().tolist() == [NOTE_OFF]
    assert notes_from_now((), (), silent=False).unique().tolist() == [UNKNOWN]
    assert [int(drums_from_now(said)) for said in (True, False, None)] == [DRUMS, NO_DRUMS, UNKNOWN]


def test_values_hold_on_and_what_is_past_is_forgotten() -> None:
    one, two = torch.tensor([[1], [2]]), torch.tensor([[7]])
    values = FrameValues(10, one).followed_by(two, at=13, kept_from=11)
    assert values.between(8, 16).flatten().tolist() == [2, 2, 2, 2, 2, 7, 7, 7]
    for at in range(20, 400, 3):
        values = values.followed_by(two, at, kept_from=at - 25)
    assert len(values.values) <= 27


def played(sampler: Sampler, n_chunks: int, *, notes_at: int | None = None, also: dict | None = None) -> Tensor:
    """Chunks of three frames, with a chord that is set before one of them."""
    with sampler.stream("piano", seed=3, also=also or {}) as music:
        music.chunk_frames = 3
        chunks = iter(music)
        found = []
        for number in range(n_chunks):
            if number == notes_at:
                music.set_conditions({"notes": notes_from_now({60}, {60, 64}, silent=True)})
            found.append(next(chunks))
        return torch.cat(found, dim=1)


def test_notes_set_while_it_plays_are_those_of_the_whole_piece(sampler: Sampler) -> None:
    """Over the ends of two windows, too: as if they had been known from the start."""
    n_frames = round(1.2 * sampler.frame_rate)
    chord = notes_from_now({60}, {60, 64}, silent=True)
    later = chord[torch.arange(n_frames - 6).clamp(max=len(chord) - 1)]
    whole = torch.cat([torch.full((6, 128), UNKNOWN), later])
    by_hand, known = played(sampler, 8, notes_at=2), played(sampler, 8, also={"notes": whole})
    torch.testing.assert_close(by_hand, known, rtol=0, atol=1e-6)
    plain = played(sampler, 4)
    by_hand = by_hand[:, : plain.shape[1]]
    before = 5 * 1920
    torch.testing.assert_close(by_hand[:, :before], plain[:, :before], rtol=0, atol=1e-6)
    assert (by_hand - plain).abs().max() > 1e-3


def test_what_cannot_change_while_it_plays_is_refused(sampler: Sampler) -> None:
    with sampler.stream("piano") as music:
        for kind in ("text", "strengths", "melody"):
            with pytest.raises(ValueError, match="cannot change"):
                music.set_conditions({kind: torch.zeros(1, 1)})


def test_conditions_that_repeat_are_read_once() -> None:
    """Else each key would cost an embedding of the whole window."""
    conditions = MagentaConditions.unknown(1, 500)
    assert conditions.without_repeats().n_frames == 1
    conditions.notes[0, :7, 60] = NOTE_HELD
    shorter = conditions.without_repeats()
    assert shorter.n_frames == 8 and torch.equal(shorter.notes, conditions.notes[:, :8])


def test_keys_and_drums_are_followed_from_the_next_frame_on(session: LiveSession) -> None:
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(session.worker.sampler, session.worker.states, lambda: session.controls, seed=5)
    player.next_chunk()
    session.set_notes([60, 64])
    session.set_drums("off")
    session.set_notes([64], others="silent")
    player.next_chunk()
    steps: Any = player.music.generation.steps
    made = player.music.generation.frames_ready(0)
    told = steps.told.conditions
    first = made - round(session.controls.chunk_sec * 25)
    assert told.notes[0, first, [60, 64, 65]].tolist() == [NOTE_ONSET, NOTE_ONSET, NOTE_OFF]
    assert told.notes[0, first + TAP_FRAMES, [60, 64, 65]].tolist() == [NOTE_OFF, NOTE_HELD, NOTE_OFF]
    assert told.drums[0, first].tolist() == [NO_DRUMS]
    player.close()


def test_a_fade_between_prompts_goes_through_the_places_between(session: LiveSession) -> None:
    """The style's tokens change with the shares, not once in the middle."""
    session.set_prompts([("drums", 1.0), ("a quiet piano", 0.0)])
    assert session.worker.sampler is not None and session.worker.states is not None
    player = Player(session.worker.sampler, session.worker.states, lambda: session.controls, seed=5)
    player.next_chunk()
    session.set_prompts([("drums", 0.0), ("a quiet piano", 1.0)], fade_sec=0.6)
    seen: list[tuple[int, ...]] = []
    for _ in range(6):
        player.next_chunk()
        style = player.music.generation.steps.told.conditions.style  # pyright: ignore
        seen.append(tuple(style[0, 0].tolist()))
    player.close()
    assert len(set(seen)) > 2 and seen[-1] == seen[-2]
    assert seen[-1] == tuple(session.worker.sampler.encode(["a quiet piano"])[0][0].tolist())


def test_a_base_without_notes_says_so(mono_base: Path, tmp_path: Path) -> None:
    with opened(mono_base, None, tmp_path) as plain:
        for mistake in (lambda: plain.set_notes([60]), lambda: plain.set_drums("on")):
            with pytest.raises(UserError, match="does not follow"):
                mistake()


def test_held_keys_are_struck_again_in_another_piece(session: LiveSession) -> None:
    session.set_notes([60])
    ear = Ear(session)
    session.start()
    ear.until(lambda: len(ear.chunks) > 2)
    told = session.worker.player.music.generation.all_rows[0].changed["notes"]  # pyright: ignore
    assert told.first == 0 and told.values[0, 60] == NOTE_ONSET and told.values[-1, 60] == NOTE_HELD
    assert list(islice(told.values[:, 61].tolist(), 1)) == [UNKNOWN]
