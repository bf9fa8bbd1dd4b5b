"""report.html of trained codecs: one self-contained page with their figures, and a passage to listen to."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.report import ogg_uri
from data_prep.safe_write import write_text
from finetune.codec_train.train import LOG, PAGE, Trained, decode_passage, load_trained
from finetune.demo.pictures import picture


def write_page(out: Path, trained: Sequence[tuple[str, Trained]]) -> Path:
    """Write the page of one codec or of several, each with a name in words."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    first = trained[0][1]
    page = environment.get_template("page.html.j2").render(
        rows=[(words, one.figures, one) for words, one in trained],
        settings=first.settings,
        curves=[_curve(words, one.path.parent / LOG) for words, one in trained],
        players=_players(trained),
        passage=first.passage.name,
        left_out=first.left_out,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / PAGE, page)
    return out / PAGE


def _players(trained: Sequence[tuple[str, Trained]]) -> list[dict[str, str]]:
    players: list[dict[str, str]] = []
    for words, one in trained:
        codec = load_trained(one.path)
        wanted, made = decode_passage(codec, one.passage)
        if not players:
            players.append(_player("recording", wanted, codec.sample_rate_hz))
        players.append(_player(words, made, codec.sample_rate_hz))
    return players


def _player(name: str, audio: Any, rate_hz: int) -> dict[str, str]:
    return {"name": name, "audio": ogg_uri(audio, rate_hz), "picture": picture(audio, rate_hz)}


def _curve(words: str, log: Path) -> tuple[str, list[tuple[int, float]]]:
    """Step and held-out mel distance, as the log has them."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return words, [(line["step"], line["held_out_mel"]) for line in lines if "held_out_mel" in line]
