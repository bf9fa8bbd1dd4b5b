"""The audit finds what was planted and nothing where nothing is."""

import numpy as np
import pytest

from adapters.sampler import Sampler
from configs.sample import SampleSettings
from data_prep.prepared import ClipRow
from finetune.judge.copying import Completion, Losses, Runs, completed, completion_frames, returned, runs_of
from finetune.judge.plan import Ask
from finetune.judge.play import Piece
from finetune.judge.reference import Window, evenly
from finetune.judge.verdict import copying_finding

RATE = 50.0


def random_codes(seed: int, n: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 512, (4, n)).astype(np.int16)


def window(seed: int, split: str = "train") -> Window:
    row = ClipRow(f"c{seed}", f"song {seed}.wav", "0" * 64, 0.0, 6.0, 300, "mix", split, [f"song {seed}"])
    return Window(row, 0, random_codes(seed))


def piece(seed: int) -> Piece:
    return Piece(Ask("own", "a song", seed), random_codes(1000 + seed), np.zeros((1, 10), np.float32))


LEARNT, KEPT = [window(n) for n in range(4)], [window(10 + n, "validation") for n in range(3)]


def runs(adapted: list[Piece]) -> Runs:
    return runs_of(adapted, [piece(20 + n) for n in range(4)], LEARNT, KEPT, frame_rate=RATE, channels=1)


def test_random_pieces_share_next_to_nothing():
    found = runs([piece(n) for n in range(4)])
    assert found.longest_sec < 0.05 and found.copies == []
    excess = found.excess_sec()
    assert excess.low <= 0 <= excess.high and abs(excess.value) < 0.05
    finding = copying_finding(found, None, None)
    assert finding.level == "good" and "No copying was found" in finding.text


@pytest.mark.parametrize("seconds", [0.4, 1.2, 3.0])
def test_a_planted_passage_is_found_with_its_song(seconds):
    planted = [piece(n) for n in range(4)]
    n = round(seconds * RATE)
    planted[2].codes[:, 90 : 90 + n] = LEARNT[1].codes[:, 40 : 40 + n]
    found = runs(planted)
    assert found.longest_sec == pytest.approx(seconds, abs=0.07)
    assert found.copies == ([2] if seconds > 1 else [])
    finding = copying_finding(found, None, None)
    assert finding.level == ("bad" if seconds > 1 else "good")
    assert ("song 1.wav" in finding.text) is (seconds > 1)
    assert found.with_training[2].first_exact > found.with_held_out[2].first_exact


def test_what_held_out_songs_share_as_well_is_no_copy():
    """A drum loop that stands in every song, taught or not."""
    shared = random_codes(500, 80)
    songs = [window(n) for n in range(30, 34)], [window(n, "validation") for n in range(40, 43)]
    for one in (*songs[0], *songs[1]):
        one.codes[:, 100:180] = shared
    ours = [piece(n) for n in range(4)]
    for one in ours:
        one.codes[:, 10:90] = shared
    found = runs_of(ours, [piece(9)], *songs, frame_rate=RATE, channels=1)
    assert found.longest_sec >= 1.6 and found.copies == []


class Parrot(Sampler):
    """Goes on with the song that it knows, and says something else otherwise."""

    def __init__(self, known: list[Window]) -> None:
        self.known, self.settings = known, SampleSettings()
        self.asked: list[SampleSettings] = []

    def codes(self, prompts, *, seeds=None, continue_from=None, n_frames=None):
        self.asked.append(self.settings)
        assert continue_from is not None and n_frames is not None
        length = continue_from.shape[1] + n_frames
        for song in self.known:
            if (song.codes[:, : continue_from.shape[1]] == continue_from).all():
                return [song.codes[:, :length]]
        return [np.concatenate([continue_from, random_codes(77, n_frames)], axis=1)]


def test_completion_tells_a_parrot():
    usual = SampleSettings()
    parrot, innocent = Parrot(LEARNT), Parrot([])
    shares = [completed(player, songs, RATE) for player in (parrot, innocent) for songs in (LEARNT, KEPT)]
    assert shares[0] == [1.0] * 4 and max(shares[1] + shares[2] + shares[3]) < 0.1
    assert parrot.settings == usual  # and the sampler is as it was
    assert {(how.temperature, how.guidance) for how in parrot.asked} == {(0.0, 1.0)}
    told = Completion(*shares)
    assert told.excess.low > 0.8
    finding = copying_finding(runs([piece(0)]), told, None)
    assert finding.level == "bad" and "100% of the next 3 s come back" in finding.text
    honest = Completion(shares[2], shares[3], shares[2], shares[3])
    assert copying_finding(runs([piece(0)]), honest, None).level == "good"
    alone = Completion(shares[0], [], shares[2], [])
    assert copying_finding(runs([piece(0)]), alone, None).level == "bad"  # without held-out clips the base is asked


def test_a_held_note_does_not_come_back():
    assert returned(np.array([5, 5, 5]), np.array([5, 5, 5, 5])) == 0.0
    assert returned(np.array([5, 7, 7]), np.array([5, 5, 7, 7])) == 1.0
    assert returned(np.array([1, 2, 3]), np.array([0, 1, 9, 3])) == pytest.approx(2 / 3)


def losses(training: float, held_out: float) -> Losses:
    rng = np.random.default_rng(0)
    tracks = [f"t{n // 2}" for n in range(12)], [f"h{n // 2}" for n in range(12)]
    a, b, c, d = (mean + 0.1 * rng.normal(size=12) for mean in (training, held_out, 5.0, 5.1))
    return Losses(a, b, c, d, *tracks)


def test_the_gap_of_losses():
    assert losses(4.0, 4.2).gap.value == pytest.approx(0.1, abs=0.12) and not losses(4.0, 4.2).is_overfitted
    assert losses(0.1, 7.2).is_overfitted and losses(3.5, 4.6).is_overfitted
    assert not losses(5.0, 5.1).is_overfitted and losses(5.0, 5.1).gap.low <= 0
    same = losses(4.0, 4.2)
    base = same.base_training, same.base_held_out
    nothing = Losses(*base, *base, ["a"] * 12, ["b"] * 12)
    assert nothing.gap.value == 0.0 == nothing.gained.value
    finding = copying_finding(runs([piece(0)]), None, losses(3.0, 4.9))
    assert finding.level == "notice" and "overfitted" in finding.text


def test_windows_that_are_long_enough():
    assert completion_frames(RATE) == 300
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7] and evenly([1, 2], 4) == [1, 2]


def test_without_the_dataset_nothing_is_claimed():
    finding = copying_finding(None, None, None)
    assert finding.level == "notice" and "Not looked for" in finding.text
