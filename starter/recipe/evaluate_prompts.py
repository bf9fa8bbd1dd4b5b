"""Do generations follow their prompts, and does an adapter change what it should and nothing else?

A probe that knows codec-decoded pieces judges family and drums; tempo is estimated from onsets.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adapters.sampler import AdapterSpec, Sampler, Take
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from data_prep.codec.port import Codec
from finetune.judge.followed import tempo_agrees, tempo_bpm
from finetune.judge.health import check
from starter.recipe.captions import open_prompt, prompt
from starter.recipe.collection import Collection
from starter.recipe.compose import HELD_OUT, compose
from starter.recipe.evaluate_codec import Figures, float_audio
from starter.recipe.manners import FAMILIES
from starter.recipe.probe import Probe, accuracy, features

ISLAND = "steel drums"
FIRST_WISH = HELD_OUT + 500_000
"""Seeds of the pieces that prompts describe: behind those of the held-out collection."""


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for. An `open` one says the tempo and leaves to the model what plays."""

    family: str
    drums: bool
    tempo_bpm: int
    manner: str
    open: bool = False

    def words(self, trigger: str = "") -> str:
        """The prompt."""
        said = prompt(self.family, self.drums, self.tempo_bpm, self.manner)
        said = open_prompt(self.tempo_bpm) if self.open else said
        return f"{said}, {trigger}" if trigger else said


def wishes(count: int) -> list[Wish]:
    """Prompts of pieces that the composer writes from seeds which training never used; families and drums in turn.

    Manner and tempo belong together as in its pieces: it knows no ballad at 140 bpm and no drums at 80.
    """
    grid = itertools.cycle(itertools.product((True, False), sorted(FAMILIES)))
    asked = []
    for number, (drums, family) in enumerate(itertools.islice(grid, count)):
        piece = compose(FIRST_WISH + number, family=family, drums=drums)
        asked.append(Wish(family, drums, piece.tempo_bpm, piece.manner))
    return asked


@dataclass
class Judge:
    """The probe, the sound it was trained for, and how often it is right on held-out pieces."""

    probe: Probe
    play_sec: float
    held_out_accuracy: dict[str, float]


def train_judge(codec: Codec, heard: Sequence[Collection], held_out: Collection, *, n: int, play_sec: float) -> Judge:
    """Train on decoded excerpts of up to `n` pieces of each collection."""
    rows, families, drums = _decoded(codec, heard, n, play_sec)
    probe = Probe(rows, {"family": families, "drums": drums})
    rows, families, drums = _decoded(codec, [held_out], n, play_sec)
    said = probe.answers(rows)
    right = {"family": accuracy(said["family"], families), "drums": accuracy(said["drums"], drums)}
    return Judge(probe, play_sec, right)


def _decoded(
    codec: Codec, collections: Sequence[Collection], n: int, play_sec: float
) -> tuple[torch.Tensor, list[str], list[str]]:
    rows, families, drums = [], [], []
    for collection in collections:
        for index in range(min(n, len(collection))):
            audio = float_audio(collection, index)[: round(play_sec * codec.sample_rate_hz)]
            codes = codec.encode([torch.from_numpy(np.ascontiguousarray(audio))[None]])[0]
            rows.append(features(codec.decode(codes)[0].numpy(), codec.sample_rate_hz))
            families.append(collection.facts[index]["family"])
            drums.append(str(collection.facts[index]["drums"]))
    return torch.stack(rows), families, drums


def evaluate_prompts(
    files: BaseFiles,
    judge: Judge,
    asked: Sequence[Wish],
    *,
    adapter: Path | None = None,
    trigger: str = "",
    batch: int = 16,
) -> Figures:
    """Play every wish, and measure; `trigger` is added to each prompt."""
    settings = SampleSettings.model_validate({"duration_sec": judge.play_sec})
    sampler = Sampler.load(files, [AdapterSpec(adapter)] if adapter else [], settings)
    takes = []
    for first in range(0, len(asked), batch):
        words = [wish.words(trigger) for wish in asked[first : first + batch]]
        takes += sampler.sample(words, seeds=list(range(first, first + len(words))))
    return measured(takes, judge.probe, asked, files.spec.sample_rate_hz, files.spec.frame_rate)


def measured(takes: Sequence[Take], probe: Probe, asked: Sequence[Wish], rate_hz: int, frame_rate: float) -> Figures:
    """Of pieces that were played for these wishes. What `woodshed evaluate` measures too, its own functions measure."""
    audio = [take.waveform.numpy() for take in takes]  # each [C, N]
    said = probe.answers(torch.stack([features(one[0], rate_hz) for one in audio]))
    health = [check(one, take.codes, rate_hz, frame_rate) for one, take in zip(audio, takes, strict=True)]
    tempi = [tempo_bpm(one, rate_hz) for one in audio]
    right = [
        tempo_agrees(found, float(wish.tempo_bpm), octaves=False) for found, wish in zip(tempi, asked, strict=True)
    ]
    near = [tempo_agrees(found, float(wish.tempo_bpm)) for found, wish in zip(tempi, asked, strict=True)]
    return {
        "generations": len(asked),
        "family": accuracy(said["family"], [wish.family for wish in asked]),
        "drums": accuracy(said["drums"], [str(wish.drums) for wish in asked]),
        "tempo": float(np.mean(right)),
        "tempo_or_half_or_double": float(np.mean(near)),
        "island": float(np.mean([family == ISLAND for family in said["family"]])),
        "silent": float(np.mean([one.is_silent for one in health])),
        "stuck": float(np.mean([one.is_stuck for one in health])),
    }


def tempo_of_real(held_out: Collection, count: int) -> float:
    """How often the tempo estimate is right on rendered pieces: no generation can be judged better than this."""
    facts = held_out.facts[:count]
    found = [tempo_bpm(float_audio(held_out, index)[None], held_out.sample_rate_hz) for index in range(len(facts))]
    right = [tempo_agrees(bpm, float(fact["tempo_bpm"]), octaves=False) for bpm, fact in zip(found, facts, strict=True)]
    return float(np.mean(right))
