"""Laws of what is measured on codes: losses, and how far predictions moved from the base's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.family.load import load_lm
from adapters.low_rank import LowRank
from data_prep.base_files import resolve_base
from finetune.judge.teacher import Heard, Teacher

NAMES = [f"decoder.model.decoder.layers.0.self_attn.{part}_proj" for part in ("q", "v", "out")]


@pytest.fixture(scope="module")
def teacher(mono_base: Path) -> Teacher:
    return Teacher(resolve_base(str(mono_base)), "cpu")


@pytest.fixture(scope="module")
def adapter(mono_base: Path) -> dict[str, LowRank]:
    lm, generator = load_lm(resolve_base(str(mono_base))), torch.Generator().manual_seed(0)
    shapes = {name: tuple(lm.state_dict()[f"{name}.weight"].shape) for name in NAMES}
    updates = {
        name: LowRank(
            torch.randn(4, n_in, generator=generator),
            0.2 * torch.randn(n_out, 4, generator=generator),
            4.0,
            False,
            None,
        )
        for name, (n_out, n_in) in shapes.items()
    }
    return updates


@pytest.fixture(scope="module")
def heard(teacher: Teacher) -> list[Heard]:
    rng = np.random.default_rng(0)
    return [Heard(rng.integers(0, teacher.lm.card, (4, 20)).astype(np.int16), words) for words in ("slow piano", "")]


def test_predictions_that_nothing_changes_have_not_moved(
    teacher: Teacher, adapter: dict[str, LowRank], heard: list[Heard]
) -> None:
    still = {name: LowRank(one.a, 0 * one.b, one.alpha, False, None) for name, one in adapter.items()}
    for found in (teacher.divergence(heard, still), teacher.divergence(heard, adapter, 0.0)):
        assert (found == 0).all()
    np.testing.assert_array_equal(teacher.losses(heard, still), teacher.losses(heard))


def test_they_move_farther_with_the_strength_and_the_base_is_as_before(
    teacher: Teacher, adapter: dict[str, LowRank], heard: list[Heard]
) -> None:
    base = teacher.losses(heard)
    found = [teacher.divergence(heard, adapter, strength) for strength in (0.25, 0.5, 1.0)]
    assert (found[0] > 0).all() and (np.diff(np.stack(found), axis=0) > 0).all()
    assert (teacher.losses(heard, adapter) != base).all()
    np.testing.assert_array_equal(teacher.losses(heard), base)


def test_a_piece_is_measured_alike_in_any_company(teacher: Teacher, adapter: dict[str, LowRank], heard: list[Heard]):
    alone = [teacher.divergence([one], adapter)[0] for one in heard]
    np.testing.assert_array_equal(teacher.divergence(heard, adapter), alone)


def test_the_base_is_asked_once_for_each_piece(
    mono_base: Path, adapter: dict[str, LowRank], heard: list[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(kept_bytes: int) -> tuple[list[np.ndarray], int]:
        monkeypatch.setattr("finetune.judge.teacher.KEPT_BYTES", kept_bytes)
        teacher, passes = Teacher(resolve_base(str(mono_base)), "cpu"), []
        teacher.lm.register_forward_hook(lambda *_: passes.append(1))
        found = [teacher.divergence(heard, adapter, strength) for strength in (1.0, 0.5, 1.0)]
        reversed_words = [Heard(one.codes, other.words) for one, other in zip(heard, heard[::-1], strict=True)]
        return [*found, teacher.divergence(reversed_words, adapter)], len(passes)

    (kept, few), (anew, many) = asked(2**20), asked(0)
    assert (few, many) == (8 + 4, 16)
    np.testing.assert_array_equal(np.stack(kept), np.stack(anew))
    np.testing.assert_array_equal(kept[0], kept[2])
    assert (kept[3] != kept[0]).all()
