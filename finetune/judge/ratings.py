"""What listeners answered: files of the listening test → means with intervals.

Where five people or more answered, intervals are over people; with fewer, over single answers, which says nothing of
how other people would hear it, and that is said. The files are checked like any from a stranger.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from adapters.printable import printable
from adapters.safe_files import read_json
from configs.errors import UserError
from finetune.judge.intervals import MIN_GROUPS, Estimate, mean_estimate, share_estimate
from finetune.judge.listening_page import FORMAT

System = Literal["base", "adapter", "anchor", "own music"]
Text = Annotated[str, StringConstraints(max_length=4000)]
Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
QUESTIONS = ("quality", "relevance")
SHOWN = {"quality": "sound quality", "relevance": "suits the words"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairAnswer(_Part):
    """One pair: which system was preferred; None for no difference."""

    prompt: Text
    asked: Literal["own", "foreign"]
    order: Annotated[list[System], Field(min_length=2, max_length=2)]
    quality: System | None
    relevance: System | None


class Rating(_Part):
    """One version of a prompt on two scales."""

    prompt: Text
    asked: Literal["own", "foreign"]
    system: System
    quality: Score
    relevance: Score


class Answers(_Part):
    """A listener's file."""

    format: Literal["woodshed-ratings"] = FORMAT
    format_version: Literal[1]
    test: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    rater: Annotated[str, StringConstraints(max_length=60)]
    pairs: Annotated[list[PairAnswer], Field(max_length=1000)]
    ratings: Annotated[list[Rating], Field(max_length=5000)]


@dataclass(frozen=True)
class Ratings:
    """Means over all listeners. Keys: question, then system; of pairs: question, the share that chose the adapter."""

    raters: list[str]
    scores: dict[str, dict[str, Estimate]]
    preferred: dict[str, Estimate]
    undecided: dict[str, float]
    over_people: bool
    doubtful: list[str]
    """Listeners who rated the filtered anchor above the piece it was made from, on average."""


def ratings_of(paths: Sequence[Path]) -> Ratings:
    """Read the files of one test.

    Raises:
        UserError: a file is not such a result, files belong to different tests, or one was given twice.
    """
    files = [_read(path) for path in paths]
    tests = {one.test for one in files}
    if len(tests) > 1:
        raise UserError("These results belong to different listening tests.", fix="Give the files of one test only.")
    seen = [one.model_dump_json() for one in files]
    if len(set(seen)) < len(seen):
        raise UserError("The same result was given twice.", fix="Give each listener's file once.")
    names = [f"{number}: {one.rater}" for number, one in enumerate(files, start=1)]
    return summed_up(dict(zip(names, files, strict=True)))


def summed_up(answers: dict[str, Answers]) -> Ratings:
    """Means of all listeners' answers."""
    over_people = len(answers) >= MIN_GROUPS
    scores = {question: _scores(answers, question, over_people) for question in QUESTIONS}
    preferred, undecided = {}, {}
    for question in QUESTIONS:
        chosen = [getattr(pair, question) for one in answers.values() for pair in one.pairs]
        decided = [choice == "adapter" for choice in chosen if choice is not None]
        preferred[question] = share_estimate(decided)
        undecided[question] = 1 - len(decided) / len(chosen) if chosen else 0.0
    doubtful = [name for name, one in answers.items() if _is_doubtful(one)]
    return Ratings(list(answers), scores, preferred, undecided, over_people, doubtful)


def ratings_lines(found: Ratings) -> Iterator[str]:
    """For a terminal."""
    yield f"{len(found.raters)} listener{'s' if len(found.raters) > 1 else ''}"
    for question in QUESTIONS:
        share, rest = found.preferred[question], found.undecided[question]
        if share.n:
            yield (
                f"{SHOWN[question]}: the adapter is preferred in {share.value:.0%} of {share.n} decided pairs "
                f"({share.low:.0%} to {share.high:.0%}); no difference in {rest:.0%}"
            )
        else:
            yield f"{SHOWN[question]}: nobody heard a difference within a pair"
        for system, mean in found.scores[question].items():
            yield f"  {system:<10} {mean.value:5.1f} of 100 ({mean.low:.1f} to {mean.high:.1f})"
    if not found.over_people:
        yield "Fewer than five listeners: the intervals are over answers and do not say how other people would hear it."
    for name in found.doubtful:
        yield f"{printable(name)} rated the filtered anchor above the piece it was made from."


def to_json(found: Ratings) -> str:
    """The same as JSON."""
    return json.dumps({"format": f"{FORMAT}-summary", **asdict(found)}, indent=2, ensure_ascii=False)


def _scores(answers: dict[str, Answers], question: str, over_people: bool) -> dict[str, Estimate]:
    found: dict[str, tuple[list[float], list[str]]] = {}
    for name, one in answers.items():
        for rating in one.ratings:
            values, raters = found.setdefault(rating.system, ([], []))
            values.append(getattr(rating, question))
            raters.append(name)
    return {
        system: mean_estimate(values, groups=raters if over_people else None)
        for system, (values, raters) in sorted(found.items())
    }


def _is_doubtful(one: Answers) -> bool:
    means = [[r.quality for r in one.ratings if r.system == system] for system in ("anchor", "adapter")]
    return all(means) and sum(means[0]) / len(means[0]) > sum(means[1]) / len(means[1])


def _read(path: Path) -> Answers:
    if not path.is_file():
        raise UserError("There is no such file of ratings.", where=str(path))
    try:
        return Answers.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"][:6])
        raise UserError(
            f"This is no result of the listening test: {place}: {first['msg'][:200]}",
            where=str(path),
            fix="Give the file that the test's page saved at its end, unchanged.",
        ) from error
