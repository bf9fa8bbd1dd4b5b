"""What the report and the terminal say of the owner's words: for how many songs there were some, from which files, and
which files gave nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.normal_text import folded
from data_prep.column_names import FILE_COLUMNS, column_name, meaning
from data_prep.describe import SongAccount
from data_prep.near_duplicates import SHORTEST_SEC
from data_prep.own_words import MetadataUse
from data_prep.scan import Rejection, ScanResult
from data_prep.song_words import Reading
from data_prep.tags import SAID_IN_CAPTIONS, facts_of

_MOST_REASONS = 3


@dataclass(frozen=True)
class SongLine:
    """A song in the report: what was used of what was read of it, and what was not."""

    source: str
    used: list[Reading]
    unused: list[Reading]


def song_lines(accounts: Sequence[SongAccount]) -> list[SongLine]:
    """A line per song of which anything was read."""
    lines = []
    for account in accounts:
        unused = [reading for reading in account.read if _is_unused(reading)]
        used = [reading for reading in account.read if not _is_unused(reading)]
        if account.read:
            lines.append(SongLine(account.source, used, unused))
    return lines


def own_words(accounts: Sequence[SongAccount]) -> str:
    """In one line: "captions for 2 of 3 songs (metadata.csv 1, sidecars 1); facts for 1 song"."""
    captions: dict[str, set[str]] = {}
    facts: set[str] = set()
    for account in accounts:
        for reading in account.read:
            if reading.use == "caption":
                captions.setdefault(_kind(reading), set()).add(account.source)
            elif _is_said(reading):
                facts.add(account.source)
    songs = set().union(*captions.values()) if captions else set()
    by_file = ", ".join(f"{name} {len(sources)}" for name, sources in sorted(captions.items()))
    said = f"captions for {len(songs)} of {len(accounts)} songs" + (f" ({by_file})" if by_file else "")
    return said + (f"; facts for {len(facts)}" if facts else "")


def unused_columns(use: MetadataUse) -> list[str]:
    """Columns of a metadata file that are neither a file nor a caption nor a fact that a clip's tags have."""
    known = {fact.field for fact in facts_of({folded(name): "x" for name in use.columns}) if fact.name}
    return [
        name
        for name in use.columns
        if meaning(name) == "fact" and column_name(name) not in FILE_COLUMNS and folded(name) not in known
    ]


def left_out(rejected: Sequence[Rejection]) -> str:
    """How much was left out, and for which reasons: "94: 80 too short, 14 not audio"."""
    reasons = Counter(re.split(r"[:;(,]", rejection.why)[0].strip() for rejection in rejected)
    if len(reasons) == 1:
        return f"{len(rejected):,}: {next(iter(reasons))}"
    named = [f"{count:,} {reason}" for reason, count in reasons.most_common(_MOST_REASONS)]
    others = sum(reasons.values()) - sum(count for _, count in reasons.most_common(_MOST_REASONS))
    return f"{len(rejected):,}: " + ", ".join(named + ([f"{others:,} for other reasons"] if others else []))


def warnings(found: ScanResult, accounts: Sequence[SongAccount], too_short: int) -> list[str]:
    """Sentences for each metadata file of which nothing, or not everything, could be used, and for sidecars; and for
    tracks that were too short to be compared with the others.
    """
    reached = {_file(reading) for account in accounts for reading in account.read if _is_said(reading)}
    lines = [line for use in found.metadata for line in _warnings(use, reached=use.where in reached)]
    sidecars = [rejection for rejection in found.rejected if rejection.what == "sidecar"]
    if sidecars:
        files = len({rejection.where for rejection in sidecars})
        first = f"{sidecars[0].where}: {sidecars[0].why}"
        lines.append(f"{files:,} file{'s' if files != 1 else ''} beside songs cannot be used, the first: {first}.")
    if too_short:
        tracks = "1 track is" if too_short == 1 else f"{too_short:,} tracks are"
        lines.append(
            f"{tracks} shorter than {SHORTEST_SEC:g} s, too short to be compared by sound with the others: a copy that "
            "is not equal to the last sample may be in training and validation at once."
        )
    return lines


def _warnings(use: MetadataUse, *, reached: bool) -> list[str]:
    rows = f"{use.rows:,} row{'s' if use.rows != 1 else ''}"
    problems = f"{use.problems:,} problem{'s' if use.problems != 1 else ''}, the first: {use.problem}"
    if not reached:
        why = use.no_song or use.problem
        if not why:
            why = "its songs were left out" if use.captions else "no column holds captions, such as text"
        columns = f" Its columns: {', '.join(use.columns)[:200]}." if use.columns else ""
        return [f"{use.where}: nothing of its {rows} is in any caption: {why}.{columns}"]
    lines = (
        [f"{use.rows - use.named:,} of its {rows} name no song here, the first: {use.no_song}"] if use.no_song else []
    )
    return [f"{use.where}: {line}." for line in lines + ([problems] if use.problems else [])]


def _is_unused(reading: Reading) -> bool:
    return reading.use.startswith("not used")


def _is_said(reading: Reading) -> bool:
    return reading.use.split(" ")[0] in SAID_IN_CAPTIONS


def _file(reading: Reading) -> str:
    """The file of a reading, without its line."""
    head, _, line = reading.where.rpartition(":")
    return head if head and line.isdigit() else reading.where


def _kind(reading: Reading) -> str:
    return _file(reading) if _file(reading) != reading.where else "sidecars"
