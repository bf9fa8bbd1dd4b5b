"""Which folders `prep` may read and write, and what it says when a song folder gives nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import UserError
from data_prep.cache import Cache
from data_prep.prepared import INFO_FILE
from data_prep.scan import Rejection, by_kind

_SHOWN = 12


def check_folders(songs: Path, out: Path) -> None:
    """Make the output folder, unless it is not ours to write to.

    Raises:
        UserError: one folder lies in the other, or `out` is a file, cannot be written, or holds something else.
    """
    real_songs, real_out = songs.resolve(), out.resolve()
    if real_songs.is_relative_to(real_out) or real_out.is_relative_to(real_songs):
        raise UserError(
            "The songs and the dataset must lie in different folders, neither inside the other.",
            where=f"songs: {real_songs}, dataset: {real_out}",
            fix="Give the dataset a folder of its own, e.g. data/mine.",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = [child.name for child in out.iterdir()]
    except OSError as error:
        raise UserError(
            "The dataset's folder cannot be used.",
            where=f"{out}: {error.strerror or error}",
            fix="Give another folder, or make this one writable.",
        ) from error
    begun = held == [".cache"] and (out / ".cache").is_dir()  # killed before it was tagged, or by a power cut then
    ours = begun or Cache.is_one(out / ".cache") or INFO_FILE in held
    if held and not ours:
        raise UserError(
            "The dataset's folder holds something else already.",
            where=f"{out}: {', '.join(sorted(held)[:5])}",
            fix="Give a new or empty folder.",
        )


def nothing_usable(songs: Path, rejected: Sequence[Rejection], passed_over: Mapping[str, int]) -> UserError:
    """What to say when no clip came out: every reason, with the files it holds for; or what was passed over."""
    if not rejected:
        fix = "Put recordings into it: wav, flac, mp3, ogg, m4a or anything else that FFmpeg reads."
        where = f"{songs}, passed over: {by_kind(passed_over)}" if passed_over else str(songs)
        return UserError("There are no recordings in this folder.", where=where, fix=fix)
    reasons = Counter(r.why for r in rejected)
    lines = [f"  {_name(r)}: {r.why}" for r in rejected[:_SHOWN]]
    if len(rejected) > _SHOWN:
        lines.append(f"  and {len(rejected) - _SHOWN} more, of {len(reasons)} kinds of reason")
    return UserError(
        "None of the recordings can be used.",
        where=f"{songs}:\n" + "\n".join(lines),
        fix="Mend or replace these files; segment.min_sec and segment.silence_db decide what is too short or silent.",
    )


def _name(rejection: Rejection) -> str:
    """A file's name on one line, whatever characters it has."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in rejection.where)
