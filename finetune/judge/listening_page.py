"""A blind listening test as one page: pairs of base and adapter, and ratings of several versions of a prompt.

Ratings follow the manner of MUSHRA (ITU-R BS.1534-3): sliders from 0 to 100, everything that is compared in one view,
a hidden anchor (the adapter's piece with nothing above 3.5 kHz) and, as there is no reference of a piece that nobody
has played before, a window of the person's own music in its place. Two questions each: sound quality, and how well it
suits the text.

Which is which is decided by the seed and not shown. The page holds the answer, since it must write it into the
result: a listener who reads its source is not blind.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from configs.evaluate import EvaluateSettings
from data_prep.report import ogg_uri
from data_prep.safe_write import check_writable, write_text
from finetune.judge.plan import own_prompts, plan
from finetune.judge.play import Piece, play, sampler
from finetune.judge.reference import Reference, reference_of
from finetune.judge.subject import open_subject

FORMAT = "woodshed-ratings"
PAIRS, SCREENS = 8, 4
ANCHOR_HZ = 3500.0


def write_listening_test(
    path: Path,
    subject_path: Path,
    settings: EvaluateSettings,
    *,
    data: Path | None = None,
    base: str | None = None,
    revision: str | None = None,
) -> int:
    """Play what is needed and write the page; returns how many pairs and rating screens it has.

    Raises:
        UserError: as `finetune.judge.flow.judge`, or the page cannot be written.
    """
    check_writable(path)  # before the time is spent, not after
    subject = open_subject(subject_path, data, base, revision)
    told = subject.adapter.woodshed
    asks = plan(settings, own_prompts(subject.dataset, told.prompts if told else []), subject.trigger)
    asks = [ask for ask in asks if ask.kind in ("own", "foreign")]
    chosen = [ask for ask in asks if ask.kind == "own"][:PAIRS] + [ask for ask in asks if ask.kind == "foreign"][:PAIRS]
    chosen = chosen[:: max(1, len(chosen) // PAIRS)][:PAIRS]
    strength = (told.recommended_strength if told else None) or 1.0
    players = sampler(subject.files, settings), sampler(subject.files, settings, subject.folder, strength)
    pieces = [play(player, chosen) for player in players]
    codec = players[0].codec
    assert codec is not None
    mine: list[Float[np.ndarray, "C _"]] = []
    if subject.dataset is not None:
        reference = reference_of(subject.dataset, round(settings.duration_sec * codec.frame_rate))
        mine = Reference(reference.windows[:SCREENS], reference.held_out).audio(codec)
    pages = pages_of(pieces[0], pieces[1], mine, codec.sample_rate_hz, settings.seed)
    write_text(path, render(subject.adapter.label, pages))
    return len(pages)


def pages_of(
    base: Sequence[Piece],
    adapted: Sequence[Piece],
    mine: Sequence[Float[np.ndarray, "C _"]],
    sample_rate_hz: int,
    seed: int,
) -> list[dict[str, Any]]:
    """What is shown, in order: pairs first, then rating screens; versions in an order that only the seed decides."""
    rng = np.random.default_rng(seed)
    pairs = []
    for ours, theirs in zip(adapted, base, strict=True):
        versions = [("base", theirs.audio), ("adapter", ours.audio)]
        pairs.append(_screen("pair", theirs, versions, sample_rate_hz, rng))
    screens = []
    for number, (ours, theirs) in enumerate(list(zip(adapted, base, strict=True))[:SCREENS]):
        versions = [("base", theirs.audio), ("adapter", ours.audio), ("anchor", anchor(ours.audio, sample_rate_hz))]
        if number < len(mine) and theirs.ask.kind == "own":
            versions.append(("own music", mine[number]))
        screens.append(_screen("rate", theirs, versions, sample_rate_hz, rng))
    return [*(pairs[n] for n in rng.permutation(len(pairs))), *(screens[n] for n in rng.permutation(len(screens)))]


def anchor(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Float[np.ndarray, "C N"]:
    """The piece with nothing above 3.5 kHz."""
    from scipy.signal import butter, sosfiltfilt

    filtered = sosfiltfilt(butter(8, ANCHOR_HZ, fs=sample_rate_hz, output="sos"), audio, axis=1)
    return np.ascontiguousarray(filtered, dtype=np.float32)


def render(name: str, pages: Sequence[dict[str, Any]]) -> str:
    """The page, with everything in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    content = json.dumps(list(pages))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("listening.html.j2").render(
        name=name,
        # Inside a script element only `</` and `<!--` could end or confuse it; JSON may spell < otherwise.
        pages=content.replace("<", "\\u003c"),
        test=hashlib.sha256(content.encode()).hexdigest()[:16],
        format=FORMAT,
    )


def _screen(
    kind: str, piece: Piece, versions: Sequence[tuple[str, np.ndarray]], sample_rate_hz: int, rng: np.random.Generator
) -> dict[str, Any]:
    order = rng.permutation(len(versions))
    shown = [{"system": versions[n][0], "audio": ogg_uri(_levelled(versions[n][1]), sample_rate_hz)} for n in order]
    return {"kind": kind, "prompt": piece.ask.prompt, "asked": piece.ask.kind, "versions": shown}


def _levelled(audio: Float[np.ndarray, "C N"]) -> Float[np.ndarray, "C N"]:
    """All at one level: the louder of two is preferred whatever it plays."""
    power = float(np.sqrt(np.square(audio.astype(np.float64)).mean()))
    peak = float(np.abs(audio).max())
    gain = min(0.08 / power, 0.98 / peak) if power > 1e-5 and peak > 0 else 1.0
    return (audio * gain).astype(np.float32)
