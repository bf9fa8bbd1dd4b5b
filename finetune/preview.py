"""Short pieces from fixed prompts and seeds while a run goes, beginning with the untuned base.

The prompts' text states are made once, before training, and the text encoder is let go; the codec stays on the CPU. A
preview that fails says why and costs nothing else: no run ends because of one.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment

from configs.sample import SampleSettings
from configs.train import PreviewSettings
from data_prep.condition_sources.added import ADDED
from data_prep.safe_write import write_text
from finetune.batches import chance

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.conditions import RowConditions
    from adapters.family.lm import LM
    from data_prep.base_files import BaseFiles
    from data_prep.codec.port import Codec
    from data_prep.prepared import PreparedDataset

OWN_PROMPTS = 2
"""Captions of the dataset that stand in where no prompts are given."""
LIST, PAGE = "previews.json", "index.html"

PAGE_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Previews</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#24303a}
td{padding:.3rem .8rem .3rem 0}h2{font-size:1.05rem;margin-top:2rem}</style></head><body>
<h1>Previews</h1><p>The same prompts and seeds each time. Step 0 is the base without the adapter.</p>
{% for prompt, pieces in prompts %}<h2>{{ prompt }}</h2><table>
{% for piece in pieces %}<tr><td>step {{ piece.step }}</td>
<td><audio controls preload="none" src="{{ piece.file }}"></audio></td>
<td>{% if piece.silent > 0.1 %}{{ (piece.silent * 100) | round | int }} % silent{% endif %}</td></tr>
{% endfor %}</table>{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class PreviewFile:
    """A preview on disk; `file` is relative to the folder of all previews."""

    step: int
    prompt: str
    file: str
    silent: float = 0.0
    """Share of it that is silent."""


@dataclass
class Previews:
    """Everything that is fixed about a run's previews."""

    folder: Path
    prompts: list[str]
    states: "list[Tensor]"
    codec: "Codec"
    settings: PreviewSettings
    say: Callable[[str], None]
    conditions: "RowConditions" = field(default_factory=dict)
    """What the pieces follow, for an adapter that adds conditions: one clip's, the same each time."""

    @classmethod
    def prepare(
        cls,
        files: "BaseFiles",
        dataset: "PreparedDataset",
        settings: PreviewSettings,
        folder: Path,
        say: Callable[[str], None],
    ) -> "Previews | None":
        """Encode the prompts and load the codec; None, after saying why, where that fails or none are wanted."""
        if settings.every_steps == 0:
            return None
        from data_prep.codec.registry import load_base_codec
        from data_prep.text_encoders.port import load_text_encoder

        prompts = settings.prompts or own_prompts(dataset)
        try:
            states = load_text_encoder(files, "cpu").encode(prompts)
            return cls(
                folder, prompts, states, load_base_codec(files, "cpu"), settings, say, conditions_of_a_clip(dataset)
            )
        except Exception as error:
            say(f"no previews in this run: {type(error).__name__}: {error}")
            return None

    def make(self, lm: "LM", step: int) -> list[str]:
        """Play every prompt as the model is now; the files made, none after saying why where that fails."""
        try:
            return [piece.file for piece in self._make(lm, step)]
        except Exception as error:
            self.say(f"no preview at step {step}: {type(error).__name__}: {error}")
            return []

    def _make(self, lm: "LM", step: int) -> list[PreviewFile]:
        from adapters.sampler import Sampler
        from data_prep.write_audio import write_audio
        from finetune.silence import MUCH, silent_share

        wanted = self.settings
        how = SampleSettings.model_validate(wanted.model_dump(include={"duration_sec", "guidance", "seed"}))
        also = {name: values for name, values in self.conditions.items() if lm.spec.has(name)}
        takes = Sampler.around(lm, how, codec=self.codec).sample(self.states, also=[also] * len(self.states))
        pieces = []
        for number, (prompt, take) in enumerate(zip(self.prompts, takes, strict=True), start=1):
            silent = silent_share(take.waveform, self.codec.sample_rate_hz)
            if silent > MUCH:
                self.say(f"step {step}: {silent:.0%} of the preview of {prompt!r} is silent")
            piece = PreviewFile(step, prompt, f"step-{step:06}/{number:02}.flac", round(silent, 3))
            tags = {"title": prompt, "comment": f"step {step}, seed {wanted.seed + number - 1}", "software": "woodshed"}
            write_audio(self.folder / piece.file, take.waveform.numpy(), self.codec.sample_rate_hz, tags)
            pieces.append(piece)
        known = [piece for piece in read_previews(self.folder) if piece.step != step]
        write_previews(self.folder, sorted([*known, *pieces], key=lambda piece: (piece.step, piece.file)))
        return pieces


def own_prompts(dataset: "PreparedDataset") -> list[str]:
    """A few captions of the dataset, of held-out clips where there are any; the same ones each time."""
    rows = dataset.clips("validation") or dataset.clips("train")
    captions = sorted({row.captions[0] for row in rows if row.captions}, key=lambda text: chance("prompt", text))
    return captions[:OWN_PROMPTS]


def conditions_of_a_clip(dataset: "PreparedDataset") -> "RowConditions":
    """What adapters add to their base's conditions, as one clip has it, a held-out one where there are any."""
    import torch

    made = [name for name in ADDED if (dataset.info.get("conditions") or {}).get(name)]
    if not made:
        return {}
    rows = dataset.clips("validation") or dataset.clips("train")
    row = min(rows, key=lambda row: chance("context in previews", row.id))
    found = {name: dataset.condition(name, row.id) for name in made}
    return {name: torch.from_numpy(np.array(values)) for name, values in found.items() if values is not None}


def read_previews(folder: Path) -> list[PreviewFile]:
    """The previews made so far."""
    path = folder / LIST
    return [PreviewFile(**line) for line in json.loads(path.read_text("utf-8"))] if path.exists() else []


def by_prompt(pieces: Sequence[PreviewFile]) -> list[tuple[str, list[PreviewFile]]]:
    """Each prompt with its pieces, oldest first."""
    return [(prompt, [p for p in pieces if p.prompt == prompt]) for prompt in dict.fromkeys(p.prompt for p in pieces)]


def write_previews(folder: Path, pieces: Sequence[PreviewFile]) -> None:
    """The list and the page that plays it."""
    write_text(folder / LIST, json.dumps([asdict(piece) for piece in pieces], indent=1, ensure_ascii=False))
    template: Any = Environment(autoescape=True).from_string(PAGE_TEMPLATE)
    write_text(folder / PAGE, template.render(prompts=by_prompt(pieces)))
