"""The blind test's page, and what comes back from it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from finetune.judge.listening_page import anchor, pages_of, render
from finetune.judge.plan import Ask
from finetune.judge.play import Piece
from finetune.judge.ratings import Answers, ratings_lines, ratings_of, summed_up

RATE = 16_000


def pieces(level: float) -> list[Piece]:
    rng = np.random.default_rng(0)
    asks = [Ask("own" if n < 3 else "foreign", f"prompt {n} </script><b>", n) for n in range(6)]
    codes = np.zeros((4, 4), np.int16)
    return [Piece(ask, codes, (level * rng.normal(size=(1, RATE // 2))).astype(np.float32)) for ask in asks]


def shown(seed: int = 0) -> list[dict]:
    mine = [np.zeros((1, RATE // 2), np.float32)] * 4
    return pages_of(pieces(0.1), pieces(0.05), mine, RATE, seed)


def test_what_is_shown_and_in_which_order():
    pages = shown()
    assert [page["kind"] for page in pages] == ["pair"] * 6 + ["rate"] * 4
    orders = [tuple(v["system"] for v in page["versions"]) for page in pages[:6]]
    assert set(orders) == {("base", "adapter"), ("adapter", "base")}
    assert orders == [tuple(v["system"] for v in page["versions"]) for page in shown()[:6]]
    assert [page["prompt"] for page in shown(1)] != [page["prompt"] for page in pages]
    rated = [{v["system"] for v in page["versions"]} for page in pages[6:]]
    assert all({"base", "adapter", "anchor"} <= these for these in rated)
    assert sum("own music" in these for these in rated) == 3  # never beside a prompt for other music


def test_the_page_fetches_nothing_and_no_prompt_breaks_out():
    page = render("my <adapter>", shown())
    assert "my &lt;adapter&gt;" in page and page.count("</script>") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page
    told = re.search(r"const pages = (.*);\n", page)
    assert told and json.loads(told[1])[0]["prompt"].endswith("</script><b>")


def test_the_anchor_has_no_highs():
    noise = np.random.default_rng(0).normal(size=(2, RATE)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(anchor(noise, RATE), axis=1))
    assert spectrum[:, 5000:].max() < 0.05 * spectrum[:, 100:3000].mean()


def answers(quality: dict[str, float], prefers: str | None = "adapter", rater: str = "ann") -> dict:
    return {
        "format": "woodshed-ratings",
        "format_version": 1,
        "test": "0123456789abcdef",
        "rater": rater,
        "pairs": [
            {"prompt": f"p{n}", "asked": "own", "order": ["base", "adapter"], "quality": prefers, "relevance": None}
            for n in range(8)
        ],
        "ratings": [
            {"prompt": f"p{n}", "asked": "own", "system": system, "quality": value + n, "relevance": 50}
            for n in range(4)
            for system, value in quality.items()
        ],
    }


def test_means_and_preferences(tmp_path: Path):
    for name, prefers in (("ann", "adapter"), ("ben", "base")):
        told = answers({"base": 20, "adapter": 60, "anchor": 10}, prefers, name)
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    found = ratings_of([tmp_path / "ann.json", tmp_path / "ben.json"])
    assert found.scores["quality"]["adapter"].value == pytest.approx(61.5)
    assert found.scores["relevance"]["base"].value == 50
    assert found.preferred["quality"].value == 0.5 and found.preferred["quality"].n == 16
    assert found.undecided == {"quality": 0.0, "relevance": 1.0} and not found.doubtful
    lines = "\n".join(ratings_lines(found))
    assert "2 listeners" in lines and "Fewer than five" in lines and "50% of 16" in lines


def test_intervals_are_over_people_where_there_are_enough():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        tastes = rng.normal(60, 10, 8)
        told = {f"{n}": Answers.model_validate(answers({"adapter": float(taste)})) for n, taste in enumerate(tastes)}
        found = summed_up(told)
        covered += found.scores["quality"]["adapter"].low <= 61.5 <= found.scores["quality"]["adapter"].high
    assert found.over_people and covered >= 52  # answers of one person alone would give far too narrow ones


def test_a_listener_who_prefers_the_filtered_piece_is_named():
    found = summed_up({"1: eve": Answers.model_validate(answers({"adapter": 20, "anchor": 70}))})
    assert found.doubtful == ["1: eve"] and "filtered anchor" in list(ratings_lines(found))[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no result of the listening test: format"),
        (
            {"ratings": [{"prompt": "p", "asked": "own", "system": "x", "quality": 1, "relevance": 1}]},
            "ratings.0.system",
        ),
        ({"ratings": [{"prompt": "p", "asked": "own", "system": "base", "quality": 101, "relevance": 1}]}, "less than"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change, message):
    (tmp_path / "a.json").write_text(json.dumps(answers({"base": 1}) | change))
    with pytest.raises(UserError, match=message):
        ratings_of([tmp_path / "a.json"])


def test_files_that_do_not_belong_together(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(answers({"base": 1})))
    (tmp_path / "b.json").write_text(json.dumps(answers({"base": 1}) | {"test": "f" * 16}))
    with pytest.raises(UserError, match="different listening tests"):
        ratings_of([tmp_path / "a.json", tmp_path / "b.json"])
    with pytest.raises(UserError, match="given twice"):
        ratings_of([tmp_path / "a.json", tmp_path / "a.json"])
    with pytest.raises(UserError, match="no such file"):
        ratings_of([tmp_path / "c.json"])
