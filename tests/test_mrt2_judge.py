"""Magenta RealTime under the judge: it is asked with its own text encoder, and silence is seen."""

import numpy as np

from data_prep.base_files import resolve_base
from finetune.judge.teacher import Heard, Teacher


def test_the_teacher_asks_with_style_tokens():
    teacher = Teacher(resolve_base("debug-mrt2"), "cpu")
    codes = np.random.default_rng(0).integers(0, 64, (12, 20)).astype(np.int16)
    told, other, bare = teacher.losses([Heard(codes, "calm piano"), Heard(codes, "fast drums"), Heard(codes, "")])
    assert np.isfinite([told, other, bare]).all() and len({told, other, bare}) == 3
