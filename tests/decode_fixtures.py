"""Engines around transformers' whole models, and pieces played with them, for the tests of decoding."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.conditions import Conditions
from adapters.decode.engine import Engine, Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.family.musicgen.format import FORMAT
from adapters.low_rank import LowRank
from data_prep.lm_spec import LMSpec

CPU = torch.device("cpu")
PLAN = WindowPlan(1500, 600, 50.0)


def spec_of(model: Any) -> LMSpec:
    """The description of a MusicGen that transformers holds, or of an LM of ours."""
    return model.spec if hasattr(model, "spec") else FORMAT.spec(Path(), model.config.to_dict())


def packed(
    model: Any,
    kind: Any = "plain",
    adapters: Mapping[str, Mapping[str, LowRank]] | None = None,
    merged_at: Mapping[str, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> MusicgenEngine:
    """MusicGen's engine with weights of its own."""
    return MusicgenEngine.pack(model, spec_of(model), Packing(kind, CPU, dtype, adapters or {}, merged_at))


def text_conditions(texts: Sequence[Tensor]) -> Conditions:
    """Texts [L, D_text] of a batch."""
    states = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    return Conditions.of_text(states, torch.arange(states.shape[1]) < lengths[:, None])


def piece(text: Tensor, n_frames: int, seed: int = 0, known: Tensor | None = None) -> Request:
    """A piece with one text."""
    return Request(PromptSchedule.of(text), n_frames, seed, known)


def generate(
    engine: Engine,
    requests: Sequence[Request],
    sampling: Sampling,
    plan: WindowPlan = PLAN,
    *,
    at_once: int = 7,
    direct: Callable[[float], bool] = lambda second: False,
) -> list[Tensor]:
    """Codes of the pieces, so many frames at a time."""
    generation = Generation(engine, requests, sampling, plan, direct)
    while not generation.done:
        generation.advance(at_once)
    return generation.codes()
