"""Which stem a file of a multitrack is, by its name or by a table that a person gives."""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from configs.errors import UserError

WORDS = {
    "drums": ("drum", "kick", "snare", "hihat", "hi-hat", "hat", "tom", "cymbal", "overhead", "perc", "beat"),
    "bass": ("bass",),
    "vocals": ("vocal", "vox", "voice", "choir", "singer", "acapella"),
}
"""Words in a file's name by stem, the first that fits; everything else is `other`."""
OTHER = "other"
STEMS = (*WORDS, OTHER)


def read_table(path: Path | None) -> dict[str, str]:
    """A table of two columns, file name (with or without ending) and stem; lower case. Nothing without a table.

    Raises:
        UserError: it cannot be read, or a line has no two columns.
    """
    if path is None:
        return {}
    try:
        lines = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the table of stem names cannot be read: {error}", where=str(path)) from error
    bad = next((row for row in lines if len(row) != 2 or not row[1].strip()), None)
    if bad is not None:
        said, fix = ",".join(bad), "one line for each name: guitar_left,other"
        raise UserError(f"a line of the table of stem names is not `file,stem`: {said}", where=str(path), fix=fix)
    return {PurePosixPath(name.strip().lower()).stem: stem.strip().lower() for name, stem in lines}


def stem_of(file_name: str, table: Mapping[str, str]) -> str:
    """Which stem a file of this name is."""
    name = PurePosixPath(file_name).stem.lower()
    if name in table:
        return table[name]
    return next((stem for stem, words in WORDS.items() if any(word in name for word in words)), OTHER)
