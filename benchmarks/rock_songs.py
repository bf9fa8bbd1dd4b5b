"""Eight real rock recordings, 27 minutes, from two Debian packages: the song folder of the end-to-end benchmark.

The packages `fretsonfire-songs-sectoid` and `fretsonfire-songs-muldjord` carry each song as two files, the guitar and
everything else; both are summed here into one recording. Nothing of them is kept in the repository.
"""

import subprocess
from pathlib import Path

import numpy as np
import soundfile

from configs.errors import UserError

PACKAGES = ("fretsonfire-songs-sectoid", "fretsonfire-songs-muldjord")
INSIDE = "usr/share/games/fretsonfire/data/songs"


def song_folder(work: Path) -> Path:
    """Make `work/songs` with one FLAC per song, unless it is there already.

    Raises:
        UserError: where `apt-get` and `dpkg-deb` cannot fetch and unpack the packages.
    """
    songs = work / "songs"
    if len(list(songs.glob("*.flac"))) == 8:
        return songs
    songs.mkdir(parents=True, exist_ok=True)
    for guitar in sorted(_recordings(work).glob("*/*/guitar.ogg")):
        _mix(guitar, guitar.with_name("song.ogg"), songs / f"{guitar.parent.name.replace(' ', '_')}.flac")
    return songs


def _recordings(work: Path) -> Path:
    installed = Path("/") / INSIDE
    if len(list(installed.glob("*/*/guitar.ogg"))) == 8:
        return installed
    unpacked = work / "packages"
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=unpacked, check=True, capture_output=True)
        for archive in unpacked.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            "The rock recordings could not be fetched.",
            where=str(error),
            fix="On Debian or Ubuntu: `apt-get update` first; elsewhere give your own folder with --songs.",
        ) from error
    return unpacked / INSIDE


def _mix(guitar: Path, rest: Path, out: Path) -> None:
    first, rate_hz = soundfile.read(guitar, dtype="float32", always_2d=True)
    second, other_hz = soundfile.read(rest, dtype="float32", always_2d=True)
    assert rate_hz == other_hz, (guitar, rate_hz, other_hz)
    length = max(len(first), len(second))
    mixed = np.zeros((length, 2), dtype=np.float32)
    mixed[: len(first)] += first
    mixed[: len(second)] += second
    soundfile.write(out, mixed / max(1.0, float(np.abs(mixed).max())), rate_hz, subtype="PCM_16")
