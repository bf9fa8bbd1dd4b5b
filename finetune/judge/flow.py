"""A judgement from beginning to end: `judge(path) -> Judged`, the Python side of `woodshed evaluate`.

    from pathlib import Path
    from finetune.judge.flow import judge

    judged = judge(Path("runs/mine"))
    print(judged.verdict.headline, judged.verdict["style"].estimate)

Nothing is written here: `finetune.judge.keep` stores the choice, `finetune.judge.page` draws the page.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adapters import adapter_files
from configs.evaluate import EvaluateSettings
from finetune.judge.agreements import agreements_for
from finetune.judge.copying import Completion, Losses, Runs, completed, completion_frames
from finetune.judge.findings import Cell, Finding, Verdict
from finetune.judge.followed import Agreement, follows
from finetune.judge.grid import Tried, choose, finalists, try_all
from finetune.judge.health import check, spread
from finetune.judge.heard import Heard, Room, Rows, closed, distances, hear, moved, open_room
from finetune.judge.intervals import mean_estimate
from finetune.judge.plan import Ask, own_prompts, plan, taught_prompts
from finetune.judge.play import Piece, of_kind, sampler
from finetune.judge.reference import Reference, Window, evenly, reference_of, windows
from finetune.judge.subject import Candidate, Subject, candidates, open_subject
from finetune.judge.teacher import Heard as Given
from finetune.judge.teacher import Teacher
from finetune.judge.verdict import (
    agreement_finding,
    bare_finding,
    copying_finding,
    followed_finding,
    forgetting_finding,
    headline,
    health_finding,
    style_finding,
    trust_finding,
)

MAX_TRAINING_WINDOWS = 96
KL_PIECES = 12
LOSS_WINDOWS = 24


@dataclass(frozen=True)
class Nearest:
    """A piece and the training window that sounds most like it."""

    piece: Piece
    window: Window
    distance: float
    usual: float
    """The median distance of a training window to the nearest one of another song."""


@dataclass
class Judged:
    """The verdict, and what a page shows beside it."""

    subject: Subject
    verdict: Verdict
    chosen: Candidate
    base: list[Piece]
    adapted: list[Piece]
    nearest: list[Nearest]
    sample_rate_hz: int
    frame_rate: float
    losses: Losses | None


def judge(
    path: Path,
    settings: EvaluateSettings | None = None,
    *,
    data: Path | None = None,
    base: str | None = None,
    revision: str | None = None,
    agreements: Sequence[Agreement] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Judged:
    """Evaluate an adapter's folder or a run's.

    Args:
        path: the folder.
        settings: how much is played, and what.
        data: the prepared dataset; by default the one that the run names, where it is still there.
        base: instead of the base that the adapter names.
        revision: of that base.
        agreements: models that judge how well sound and words agree; by default those that go with the embedding.
        say: hears what is being done.

    Raises:
        UserError: there is no adapter, it does not belong to the base, or there is nothing to ask for.
    """
    started = time.perf_counter()
    settings = settings or EvaluateSettings()
    judges = agreements_for(settings.embedding) if agreements is None else agreements
    subject = open_subject(path, data, base, revision)
    told = subject.adapter.woodshed
    asks = plan(
        settings,
        own_prompts(subject.dataset, told.prompts if told else []),
        subject.trigger,
        taught_prompts(subject.dataset),
    )
    n_frames = round(settings.duration_sec * subject.files.spec.frame_rate)
    reference = None if subject.dataset is None else reference_of(subject.dataset, n_frames)
    reference = reference if reference is not None and len(reference.windows) > 1 else None
    room = open_room(subject.files, settings, asks, reference, say)
    music = _Music.of(subject, n_frames, settings.completions)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(subject, settings, room, music, asks, Path(folder), say)
        cells, chosen, why, heard = bench.choose()
        losses = bench.losses(chosen)
        findings = bench.findings(chosen, heard, losses, judges)
    verdict = Verdict(
        name=subject.adapter.label,
        base=subject.adapter.base_id or subject.files.id,
        headline=headline(findings),
        findings=findings,
        cells=cells,
        choice=why,
        step=chosen.cell.step,
        strength=chosen.cell.strength,
        embedding=room.ear.name,
        settings=settings.model_dump(mode="json"),
        seconds=time.perf_counter() - started,
        notes=notes(subject, reference, settings),
    )
    return Judged(
        subject,
        verdict,
        chosen.candidate,
        room.base.pieces,
        heard.rows.pieces,
        nearest_of(room, heard.rows, music.training),
        room.codec.sample_rate_hz,
        room.codec.frame_rate,
        losses,
    )


def notes(subject: Subject, reference: Reference | None, settings: EvaluateSettings) -> list[str]:
    """What could not be measured as it should be, and why."""
    found = []
    if subject.dataset is None:
        found.append(
            "No dataset was given (--data): style and memorised songs cannot be measured, only what is played."
        )
        return found
    if subject.files.move:
        found.append(
            f"The adapter has another {' and '.join(subject.files.move.parts)} than its base: it is compared with the "
            "base as it was published, on the same music."
        )
    songs = {split: {row.source for row in subject.dataset.clips(split)} for split in ("train", "validation")}
    if not songs["validation"]:
        found.append(
            "No track was held out: style is measured against the songs it was taught, so copying looks like style. "
            "Prepare with more tracks, or a larger --split.validation_share, to know better."
        )
    if len(songs["train"]) == 1:
        found.append("It was taught a single song: what is its style and what is that song cannot be told apart.")
    if reference is None:
        found.append(f"The clips are shorter than {settings.duration_sec:g} s: style could not be measured.")
    elif len(set(reference.tracks)) < 5:
        found.append(
            f"The interval of style rests on {len(set(reference.tracks))} songs: it does not say how others would do."
        )
    return found


@dataclass(frozen=True)
class _Music:
    """Windows to look for copies in, and to ask losses of."""

    training: list[Window]
    held_out: list[Window]
    to_complete: list[list[Window]]
    """Of training and of held-out songs: long enough for what is given and what should come back."""

    @classmethod
    def of(cls, subject: Subject, n_frames: int, completions: int) -> "_Music":
        if subject.dataset is None:
            return cls([], [], [[], []])
        rate, dataset = subject.files.spec.frame_rate, subject.dataset
        long = completion_frames(rate)
        return cls(
            windows(dataset, "train", n_frames, MAX_TRAINING_WINDOWS),
            windows(dataset, "validation", n_frames),
            [windows(dataset, split, long, completions) if completions else [] for split in ("train", "validation")],
        )


@dataclass
class _Bench:
    """One evaluation while it goes."""

    subject: Subject
    settings: EvaluateSettings
    room: Room
    music: _Music
    asks: list[Ask]
    scratch: Path
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.teacher = Teacher(self.subject.files, self.settings.device)
        self.foreign = [
            Given(piece.codes, piece.ask.prompt) for piece in of_kind(self.room.base.pieces, "foreign")[:KL_PIECES]
        ]

    def choose(self) -> tuple[list[Cell], Tried, str, Heard]:
        """All cells, the one that is chosen, why, and what it sounds like."""
        found = candidates(self.subject, checkpoints=self.settings.grid.checkpoints)
        strengths = self.settings.grid.strengths
        self.say(
            f"{len(found) * len(set(strengths))} cells: {len(found)} checkpoints at {len(set(strengths))} strengths"
        )
        own = [Given(w.codes, w.caption) for w in evenly(self.music.held_out or self.music.training, 64)]
        if not own:  # nothing but the base's own pieces: they cannot gain, and KL alone tells cells apart
            own = [Given(piece.codes, piece.ask.prompt) for piece in of_kind(self.room.base.pieces, "own")]
        tried = try_all(self.teacher, found, strengths, own, self.foreign)
        played = [self._heard(one) for one in finalists(tried, self.settings.grid.finalists)]
        best, why = choose([one.cell for one, _ in played])
        chosen, heard = next((one, heard) for one, heard in played if _same_place(one.cell, best))
        by_place = {_place(one.cell): one.cell for one, _ in played} | {_place(best): best}
        cells = [by_place.get(_place(one.cell), one.cell) for one in tried]
        return cells, replace(chosen, cell=best), why, self._completed(chosen, heard)

    def findings(
        self, chosen: Tried, heard: Heard, losses: Losses | None, agreements: Sequence[Agreement]
    ) -> list[Finding]:
        """Every finding about the chosen cell."""
        rows, base = heard.rows, _in_order(self.room.base, heard.rows)
        found: list[Finding | None] = []
        trusted = True
        if self.room.trust is not None and self.room.reference is not None:
            trusted = self.room.trust.holds
            found.append(trust_finding(self.room.trust, self.room.ear.name, not self.room.reference.held_out))
        found.append(style_finding(heard.style, distances(self.room, rows), trusted))
        found.append(bare_finding(heard.bare_style, heard.style))
        kl = self.teacher.divergence(
            self.foreign, chosen.candidate.updates, chosen.cell.strength, chosen.candidate.whole
        )
        found.append(forgetting_finding(heard.forgetting, mean_estimate(kl), self.room.scale is not None))
        found += self._prompt(base, rows, agreements)
        found.append(self._health(base, rows))
        self.say("looking for copies of training songs")
        found.append(copying_finding(heard.runs, self._completion(chosen), losses))
        return [one for one in found if one is not None]

    def _heard(self, one: Tried) -> tuple[Tried, Heard]:
        """Play a finalist: what the choice needs."""
        self.say(f"{one.cell.name} plays")
        asks = [ask for ask in self.asks if ask.kind in ("own", "foreign")]
        heard = hear(
            self.room, self._folder(one.candidate), one.cell.strength, asks, self.music.training, self.music.held_out
        )
        trusted = self.room.trust is None or self.room.trust.holds
        scaled = self.room.scale is not None
        cell = replace(
            one.cell,
            style=heard.style if trusted else None,
            forgetting=heard.forgetting if scaled else None,
            copies=len(heard.runs.copies) if heard.runs else 0,
        )
        return replace(one, cell=cell), heard

    def _completed(self, one: Tried, heard: Heard) -> Heard:
        """The chosen one plays the rest: prompts without the trigger, and captions of training songs."""
        asks = [ask for ask in self.asks if ask.kind in ("bare", "taught")]
        if not asks:
            return heard
        more = hear(
            self.room, self._folder(one.candidate), one.cell.strength, asks, self.music.training, self.music.held_out
        )
        rows = Rows([*heard.rows.pieces, *more.rows.pieces], np.concatenate([heard.rows.embedded, more.rows.embedded]))
        runs = heard.runs
        if runs is not None and more.runs is not None:
            runs = Runs(
                runs.with_training + more.runs.with_training,
                runs.with_held_out + more.runs.with_held_out,
                runs.of_base + more.runs.of_base,
                runs.frame_rate,
            )
        return Heard(
            rows, closed(self.room, rows, "own"), closed(self.room, rows, "bare"), moved(self.room, rows), runs
        )

    def _prompt(self, base: list[Piece], rows: Rows, agreements: Sequence[Agreement]) -> list[Finding | None]:
        rate_hz = self.room.codec.sample_rate_hz
        followed = [[follows(p.audio, p.ask.prompt, rate_hz) for p in these] for these in (base, rows.pieces)]
        found = [followed_finding(*followed)]
        for judge in agreements:
            scores = [
                judge.agree([p.audio for p in these], [p.ask.prompt for p in these], rate_hz)
                for these in (base, rows.pieces)
            ]
            found.append(agreement_finding(judge.name, *scores))
        return found

    def _health(self, base: list[Piece], rows: Rows) -> Finding:
        rate_hz, frames = self.room.codec.sample_rate_hz, self.room.codec.frame_rate
        checked = [[check(p.audio, p.codes, rate_hz, frames) for p in these] for these in (base, rows.pieces)]
        place = {piece.ask: number for number, piece in enumerate(self.room.base.pieces)}
        before = self.room.base.embedded[[place[piece.ask] for piece in rows.pieces]]
        prompts = [f"{piece.ask.kind} {piece.ask.prompt}" for piece in rows.pieces]
        return health_finding(checked[0], checked[1], spread(before, prompts), spread(rows.embedded, prompts))

    def _completion(self, chosen: Tried) -> Completion | None:
        rate, asked = self.room.codec.frame_rate, self.music.to_complete
        if not asked[0]:
            return None
        players = (
            sampler(self.subject.files, self.settings, self._folder(chosen.candidate), chosen.cell.strength),
            sampler(self.subject.files, self.settings),
        )
        return Completion(*(completed(player, these, rate) for player in players for these in asked))

    def losses(self, chosen: Tried) -> Losses | None:
        """What training and held-out windows cost; None where there are none of either."""
        sets = [evenly(these, LOSS_WINDOWS) for these in (self.music.training, self.music.held_out)]
        if not all(sets):
            return None
        given = [[Given(w.codes, w.caption) for w in these] for these in sets]
        one, strength = chosen.candidate, chosen.cell.strength
        adapted = [self.teacher.losses(these, one.updates, strength, one.whole) for these in given]
        base = [self.teacher.losses(these) for these in given]
        songs = [[w.clip.source for w in these] for these in sets]
        return Losses(adapted[0], adapted[1], base[0], base[1], songs[0], songs[1])

    def _folder(self, candidate: Candidate) -> Path:
        """Where a candidate's weights lie as an adapter."""
        if candidate.updates is self.subject.adapter.updates:
            return self.subject.folder
        folder = self.scratch / f"step-{candidate.step}"
        if not folder.exists():
            assert self.subject.adapter.woodshed is not None
            adapter_files.save(folder, candidate.updates, self.subject.adapter.woodshed, whole=candidate.whole)
        return folder


def nearest_of(room: Room, rows: Rows, training: Sequence[Window]) -> list[Nearest]:
    """For each piece on own and taught prompts, the training window that sounds most like it, nearest first."""
    ours = rows.of("own", "taught")
    if not training or not len(ours.pieces):
        return []
    songs = room.embed([room.codec.decode(window.codes).numpy() for window in training])
    names = np.array([window.clip.source for window in training])
    between = np.linalg.norm(songs[:, None] - songs[None], axis=2)
    between[names[:, None] == names[None]] = np.inf
    usual = float(np.median(between.min(axis=1)))
    gaps = np.linalg.norm(ours.embedded[:, None] - songs[None], axis=2)
    pairs = [
        Nearest(piece, training[int(row.argmin())], float(row.min()), usual)
        for piece, row in zip(ours.pieces, gaps, strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.distance)


def _in_order(base: Rows, rows: Rows) -> list[Piece]:
    place = {piece.ask: piece for piece in base.pieces}
    return [place[piece.ask] for piece in rows.pieces]


def _place(cell: Cell) -> tuple[int | None, float]:
    return cell.step, cell.strength


def _same_place(one: Cell, other: Cell) -> bool:
    return _place(one) == _place(other)
