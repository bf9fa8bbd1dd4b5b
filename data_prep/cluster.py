"""A large collection on many machines: Ray does the work on the songs, and leaves it in the dataset's cache.

Song folder and dataset lie on a disk that every machine sees under the same paths. A task works on a few songs as
`prep` does on all of them; then `prep` itself goes over the collection, finds everything in the cache, and puts the
dataset together, so that it is the one that a single machine would have made. What a task could not do (its machine
crashed, say) is simply not there yet, and is done then.
"""

import os
import platform
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.prep import PrepSettings
from data_prep.cache import Cache
from data_prep.progress import stage
from data_prep.song_file import SongFile

SONGS_PER_TASK = 8
"""At most: a task loads codec and listeners once, and what it had in hand is what a crash costs."""
TASKS_PER_WORKER = 4
"""At least, where there are songs enough, so that nobody waits for the slowest for long."""


def prepare_on_ray(songs: Sequence[SongFile], settings: PrepSettings, cache: Path) -> None:
    """Work on the songs in the Ray cluster that is running, or in one started on this machine for the time.

    Each task takes a core; where the cluster has GPUs, one of them too (unless `device` is cpu).

    Raises:
        UserError: Ray is not installed or cannot be reached; a machine does not see the folders; or what `prep` raises.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    for line in beginning(len(songs), ours):
        print(line, file=sys.stderr, flush=True)
    if ours:
        _start(ray)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if settings.device != "cpu" else 0
        task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=1)(_work_on)
        parts = shares(songs, gpus or int(resources.get("CPU", 1)), settings.multitracks)
        asked = settings.model_dump_json(exclude={"cluster"})
        waiting = {task.remote(part, asked, str(cache), str(Path.cwd())): len(part) for part in parts}
        n_machines = len(ray.nodes())
        with stage(
            f"songs on {n_machines} machine{'s' if n_machines > 1 else ''}", len(songs), unit="songs"
        ) as progress:
            while waiting:
                done, _ = ray.wait(list(waiting))
                progress.advance(waiting.pop(done[0]))
                _raise_for_user(ray, done[0])
    finally:
        if ours:
            ray.shutdown()


def beginning(n_songs: int, ours: bool) -> list[str]:
    """What is said before the first song is done: nothing is to be seen for as long as Ray and the models load."""
    said = ["starting Ray on this machine, or joining its cluster …"] if ours else []
    if n_songs <= SONGS_PER_TASK:
        songs = "1 song" if n_songs == 1 else f"{n_songs} songs"
        said.append(f"{songs} only: every task loads the models anew, so `prep` is usually quicker without --cluster")
    return said


def shares(songs: Sequence[SongFile], workers: int, by_folder: bool) -> list[list[SongFile]]:
    """The songs, cut into tasks in order; with `by_folder` what lies in one folder stays together."""
    groups = [[song] for song in songs]
    if by_folder:
        groups = [list(group) for _, group in groupby(songs, key=lambda song: song.path.parent)]
    size = max(1, min(SONGS_PER_TASK, len(groups) // (workers * TASKS_PER_WORKER)))
    parts = [groups[first : first + size] for first in range(0, len(groups), size)]
    return [[song for group in part for song in group] for part in parts]


def _work_on(songs: Sequence[SongFile], asked: str, cache: str, folder: str) -> None:
    """In a task: everything but what needs all songs, and the states of captions (one encoder, in a moment).

    Relative paths are relative to `folder`.
    """
    from data_prep.progress import quiet_libraries
    from data_prep.song_work import find_place, read_wishes, work_on

    seen = (Path(folder), Path(folder) / cache, Path(folder) / songs[0].path)
    missing = next((path for path in seen if not path.exists()), None)
    if missing is not None:
        raise UserError(
            "A machine of the cluster does not see what this one does.",
            where=f"{missing} on {platform.node()}",
            fix="Put songs and dataset on a disk that all machines share, under the same paths.",
        )
    os.chdir(folder)
    quiet_libraries()
    settings = PrepSettings.model_validate_json(asked).model_copy(update={"workers": 1})
    work_on(songs, settings, read_wishes(settings), find_place(settings, Cache(Path(cache))))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed.",
            where="cluster: ray",
            fix="Install it with `pip install 'woodshed[cluster]'`, or leave --cluster out.",
        ) from error
    return ray


def _start(ray: Any) -> None:
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            "The Ray cluster cannot be reached.",
            where=str(error).splitlines()[0],
            fix="Look at it with `ray status`, or unset RAY_ADDRESS: then Ray runs on this machine alone.",
        ) from error


def _raise_for_user(ray: Any, done: Any) -> None:
    """What a task raised for a person to mend; what a crashed one left undone, `prep` itself does."""
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError:
        pass
