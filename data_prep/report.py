"""report.html of a prepared dataset: one self-contained page of what a person wants to see and hear before training."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.describe import SongAccount
from data_prep.flag_words import remark
from data_prep.prepared import ClipRow
from data_prep.report_words import own_words, song_lines, unused_columns, warnings
from data_prep.scan import Rejection, ScanResult, by_kind
from data_prep.split import VALIDATION

MAX_CLIPS_SHOWN = 300
MAX_REJECTED_SHOWN = 300
MAX_SONGS_SHOWN = 300
_INK, _ACCENT = "#24303a", "#b5622e"


@dataclass(frozen=True)
class Player:
    """A clip to listen to, as it is and as the codec gives it back: OGG files as data URIs, and how far they differ.

    `mel_distance` is that of `codec_measures.spectral` at 44.1 kHz, in the codec's channels.
    """

    clip: ClipRow
    source_uri: str
    codec_uri: str
    mel_distance: float
    si_sdr_db: float


def render(
    rows: Sequence[ClipRow],
    rejected: Sequence[Rejection],
    info: dict[str, Any],
    players: Sequence[Player],
    songs: Sequence[SongAccount],
    found: ScanResult,
    too_short: int = 0,
) -> str:
    """The page. Every text from outside is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["clock"] = lambda sec: f"{int(sec) // 60}:{int(sec) % 60:02d}"
    environment.filters["remark"] = remark
    return environment.get_template("report.html.j2").render(
        info=info,
        facts=_facts(rows, rejected),
        sources=_sources(rows),
        rows=[asdict(row) for row in rows[:MAX_CLIPS_SHOWN]],
        rows_left=max(0, len(rows) - MAX_CLIPS_SHOWN),
        rejected=[asdict(r) for r in rejected[:MAX_REJECTED_SHOWN]],
        rejected_left=max(0, len(rejected) - MAX_REJECTED_SHOWN),
        players=players,
        own_words=own_words(songs),
        metadata=found.metadata,
        unused_columns=unused_columns,
        warnings=warnings(found, songs, too_short),
        songs=song_lines(songs)[:MAX_SONGS_SHOWN],
        songs_left=max(0, len(song_lines(songs)) - MAX_SONGS_SHOWN),
        passed_over=by_kind(found.passed_over),
        plots=_plots(rows),
    )


def _facts(rows: Sequence[ClipRow], rejected: Sequence[Rejection]) -> list[tuple[str, str]]:
    total, held = (sum(r.duration_sec for r in chosen) for chosen in (rows, [r for r in rows if r.split == VALIDATION]))
    captions = {caption for row in rows for caption in row.captions}
    return [
        ("tracks", str(len({row.source for row in rows}))),
        ("clips", str(len(rows))),
        ("minutes", f"{total / 60:.1f}"),
        ("held out for validation", f"{held / 60:.1f} min ({held / total:.0%})"),
        ("distinct captions", str(len(captions))),
        ("left out", str(len(rejected))),
    ]


def _sources(rows: Sequence[ClipRow]) -> list[dict[str, Any]]:
    """A line per track and stems, in the order of the clips."""
    groups: dict[tuple[str, str], list[ClipRow]] = {}
    for row in rows:
        groups.setdefault((row.source, row.stems), []).append(row)
    return [
        {
            "source": source,
            "stems": stems,
            "split": group[0].split,
            "clips": len(group),
            "seconds": sum(row.duration_sec for row in group),
            "lufs": _median([row.loudness_lufs for row in group]),
            "bpm": _median([row.tempo_bpm for row in group]),
            "key": Counter(row.key or "–" for row in group).most_common(1)[0][0],
            "remarks": [remark(flag) for flag in sorted({flag for row in group for flag in row.flags})],
        }
        for (source, stems), group in groups.items()
    ]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _plots(rows: Sequence[ClipRow]) -> list[tuple[str, str]]:
    """(title, SVG as data URI) of what there is to see."""
    numbers = (
        ("Clip length, seconds", [row.duration_sec for row in rows]),
        ("Loudness, LUFS", [row.loudness_lufs for row in rows if row.loudness_lufs is not None]),
        ("Tempo, beats per minute", [row.tempo_bpm for row in rows if row.tempo_bpm is not None]),
    )
    plots = [(title, _histogram(values)) for title, values in numbers if values]
    keys = Counter(row.key for row in rows if row.key)
    return plots + ([("Key", _bars(keys.most_common(10)))] if keys else [])


def _histogram(values: Sequence[float]) -> str:
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes()
    axes.hist(values, bins=min(20, max(5, len(values) // 2)), color=_ACCENT, edgecolor="white")
    axes.set_ylabel("clips")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return _svg(figure)


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(left=0.35)
    names = [name for name, _ in counts][::-1]
    axes.barh(names, [count for _, count in counts][::-1], color=_ACCENT)
    axes.set_xlabel("clips")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return _svg(figure)


def _axes(left: float = 0.15) -> tuple[Any, Any]:
    """A bare figure, beginning at `left` of its width; pyplot and its global state are left alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2, 2.3))
    axes = figure.add_axes((left, 0.2, 0.95 - left, 0.75))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    held = io.BytesIO()
    with rc_context({"svg.hashsalt": "woodshed", "svg.fonttype": "path"}):
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri("image/svg+xml", held.getvalue())


def ogg_uri(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> str:
    """Audio as an OGG Vorbis data URI, faded at both ends."""
    import soundfile

    fade = np.minimum(1.0, np.arange(audio.shape[1]) / (0.02 * sample_rate_hz))
    faded = np.clip(audio * fade * fade[::-1], -1.0, 1.0)
    held = io.BytesIO()
    with soundfile.SoundFile(held, "w", sample_rate_hz, audio.shape[0], format="OGG", subtype="VORBIS") as file:
        for start in range(0, faded.shape[1], sample_rate_hz):  # libsndfile's Vorbis overflows the stack on long writes
            file.write(faded[:, start : start + sample_rate_hz].T)
    return data_uri("audio/ogg", held.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as a URI that stands in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
