"""A table as text → rows of (column, value): CSV as spreadsheets and people write it.

Read are commas, semicolons, tabs and bars; a header in any case, or none where the first line names a song; cells with
line ends in quotes; unquoted captions with the separator in them, whose cells are put together again. A quote that is
never closed ends with its own line, and is reported. It knows nothing of songs.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data_prep.column_names import FILE_COLUMNS, column_name, meaning

_SEPARATORS = (",", ";", "\t", "|")
_MAX_LINES = 200
"""A quoted cell with more lines is taken for one whose quote was not closed."""
_MAX_MORE_LINES = 500_000
"""Lines that are read again, in all, to look for the ends of quotes."""
_AUDIO_NAME = re.compile(
    r"\.(wave?|mp3|flac|ogg|oga|opus|m4a|mp4|aac|aiff?|aifc|wma|alac|ape|wv|caf|amr|webm|mka|mpc|tta|au|snd|w64)$", re.I
)


@dataclass
class Table:
    """Rows by the line they begin in, each a list of (column, value) without empty values, and what is wrong."""

    rows: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """(line, reason)."""
    columns: list[str] = field(default_factory=list)


def is_audio_name(name: str) -> bool:
    """Whether a name ends like that of an audio file."""
    return _AUDIO_NAME.search(name.strip()) is not None


def read_table(text: str, is_song: Callable[[str], bool] = is_audio_name) -> Table:
    """Read a whole table. `is_song` tells a song's name: a line that begins with one begins a row.

    Raises:
        ValueError: no column names a file.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    told = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", lines[start], re.IGNORECASE) if start < len(lines) else None
    start += told is not None
    if start >= len(lines):
        raise ValueError("the file is empty")
    separator = told.group(1) if told else _separator(lines[start:], is_song)
    reader = _Reader(lines, separator, is_song)
    header, used = reader.record(start)
    if _file_column(header) is not None:
        start += used
    elif _is_headerless(header, is_song):
        header = ["file_name", "text"]
    else:
        names = ", ".join(cell.strip() for cell in header if cell.strip())
        raise ValueError(f"no column names the file, such as file_name; the columns are: {names[:200]}")
    table = Table(columns=[cell.strip() for cell in header], problems=reader.problems)
    while start < len(lines):
        cells, used = reader.record(start)
        if any(cell.strip() for cell in cells):
            table.rows.append((start + 1, _named(header, cells, separator, start + 1, table.problems)))
        start += used
    if not table.rows and not table.problems:
        table.problems.append((0, "it has no row"))
    return table


def _separator(lines: Sequence[str], is_song: Callable[[str], bool]) -> str:
    """The one under which the first line has most columns that we know; where it tells nothing, what csv.Sniffer says.

    The sniffer alone takes a comma within captions for the separator of a table with tabs.
    """
    scores = {}
    for separator in _SEPARATORS:
        cells = next(csv.reader([lines[0]], delimiter=separator))
        known = sum(column_name(cell) in FILE_COLUMNS or meaning(cell) != "fact" for cell in cells)
        told = _file_column(cells) is not None or _is_headerless(cells, is_song)
        scores[separator] = (told, known, len(cells))
    best = max(scores, key=lambda separator: scores[separator])
    if scores[best][0]:
        return best
    try:
        return csv.Sniffer().sniff("\n".join(lines[:50])[:20_000], "".join(_SEPARATORS)).delimiter
    except csv.Error:
        return ","


def _file_column(header: Sequence[str]) -> int | None:
    """Which column names the file: the first of `FILE_COLUMNS` that is there."""
    names = [column_name(cell) for cell in header]
    return next((names.index(known) for known in FILE_COLUMNS if known in names), None)


def _is_headerless(cells: Sequence[str], is_song: Callable[[str], bool]) -> bool:
    return len(cells) > 1 and is_song(cells[0])


@dataclass
class _Reader:
    """Lines → rows of cells."""

    lines: Sequence[str]
    separator: str
    is_song: Callable[[str], bool]
    problems: list[tuple[int, str]] = field(default_factory=list)
    more_lines: int = _MAX_MORE_LINES

    def record(self, at: int) -> tuple[list[str], int]:
        """A row's cells and the number of lines it takes: more than one when a quoted cell holds line ends."""
        for end in range(at + 1, min(len(self.lines), at + _MAX_LINES) + 1):
            if end > at + 1:
                if self.more_lines <= 0 or self._begins_a_row(self.lines[end - 1]):
                    break  # the quote was not meant to hold it
                if '"' not in self.lines[end - 1]:
                    continue
                self.more_lines -= end - at
            try:
                return _cells(self.lines[at:end], self.separator, strict=True), end - at
            except csv.Error as error:
                if "unexpected end of data" not in str(error):
                    break
        return self._mended(at), 1

    def _begins_a_row(self, line: str) -> bool:
        cells = [cell.strip().strip('"') for cell in line.split(self.separator)]
        return len(cells) > 1 and any(cell and self.is_song(cell) for cell in cells)

    def _mended(self, at: int) -> list[str]:
        """The cells of a line whose quotes are wrong; a quote that is not closed is left out."""
        line = self.lines[at]
        if line.count('"') % 2:
            self.problems.append((at + 1, "a quote is opened and not closed; the row is read to the end of its line"))
            before, _, behind = line.rpartition('"')
            line = before + behind
        try:
            return _cells([line], self.separator, strict=False)
        except csv.Error as error:
            self.problems.append((at + 1, f"not readable: {error}"))
            return []


def _cells(lines: Sequence[str], separator: str, *, strict: bool) -> list[str]:
    """Cells of one row. A space before a quoted cell is left out; before another it stays, for captions with commas."""
    text = [line + "\n" for line in lines[:-1]] + [lines[-1]]
    spaced = re.search(rf'{re.escape(separator)}[ \t]+"', lines[0]) is not None and separator != "\t"
    rows = list(csv.reader(text, delimiter=separator, strict=strict, skipinitialspace=spaced))
    if len(rows) > 1:
        raise csv.Error("more than one row")
    return rows[0] if rows else []


def _named(
    header: Sequence[str], cells: list[str], separator: str, line: int, problems: list[tuple[int, str]]
) -> list[tuple[str, str]]:
    """Cells under their columns. Cells too many are part of the caption, which holds the separator; without a
    caption, of the last column.
    """
    surplus = len(cells) - len(header)
    if surplus > 0 and not any(cell.strip() for cell in cells[len(header) :]):
        cells = cells[: len(header)]
    elif surplus > 0:
        owner = _column_of_surplus(header)
        if owner is None:
            lost = separator.join(cells[len(header) :]).strip()
            problems.append((line, f"more cells than columns, and no caption that they can be part of: {lost[:100]!r}"))
            cells = cells[: len(header)]
        else:
            whole = separator.join(cells[owner : owner + surplus + 1])
            cells = [*cells[:owner], whole, *cells[owner + surplus + 1 :]]
    pairs = zip(header, cells, strict=False)
    named, nameless = [], []
    for name, cell in pairs:
        if cell.strip():
            (named if name.strip() else nameless).append((name.strip(), cell.strip()))
    if nameless:
        problems.append((line, f"a cell without a column name: {nameless[0][1][:100]!r}"))
    return named


def _column_of_surplus(header: Sequence[str]) -> int | None:
    captions = [index for index, name in enumerate(header) if meaning(name) != "fact"]
    if captions:
        return captions[-1]
    last = len(header) - 1
    return None if last == _file_column(header) else last
