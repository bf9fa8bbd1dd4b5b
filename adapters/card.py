"""The card: README.md of an adapter, with the front matter that the hub reads, and code that loads it anywhere.

What people wrote (names, triggers, prompts) is data here: it is quoted as YAML, as Python or as Markdown, never pasted.
"""

import html
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.low_rank import LowRank
from adapters.metadata import Woodshed
from adapters.moved import words_of
from data_prep.base_files import DEBUG_BASES
from data_prep.families import format_named, formats, module_kind

TEMPLATE = Path(__file__).with_name("card.md.j2")
WITH_WOODSHED = ("starter", *DEBUG_BASES)
"""Bases that come with Woodshed, or that it makes: no hub knows them."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def card(
    woodshed: Woodshed,
    updates: Mapping[str, LowRank],
    samples: Mapping[str, str] | None = None,
    base_samples: Mapping[str, str] | None = None,
) -> str:
    """The card's text. `samples` maps a prompt to an audio file beside the card; `base_samples` to the base's own."""
    import jinja2

    samples, base_samples = samples or {}, base_samples or {}
    base = woodshed.base.id
    template = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    prompt, model_class = example_prompt(woodshed), transformers_class(woodshed)
    return template.render(
        front_matter=front_matter(woodshed, samples),
        name=plain(woodshed.name),
        base=plain(base),
        base_link=f"https://huggingface.co/{quote(_repository(base))}" if on_hub(base) else "#",
        base_note=_base_note(base),
        revision=plain(woodshed.base.revision or ""),
        trigger=plain(woodshed.trigger),
        ranks=", ".join(str(rank) for rank in sorted({update.rank for update in updates.values()})),
        n_numbers=f"{sum(update.a.numel() + update.b.numel() for update in updates.values()):,}",
        kinds=", ".join(dict.fromkeys(module_kind(module) for module in updates)),
        strength=f"{woodshed.strength[0]:g} to {woodshed.strength[1]:g}",
        recommended="" if woodshed.recommended_strength is None else f"{woodshed.recommended_strength:g}",
        evaluation=_evaluation(woodshed),
        data=_data(woodshed),
        training=f"{woodshed.training.steps} steps" if woodshed.training else "",
        held_out=_held_out(woodshed),
        license_words=plain(woodshed.license),
        license_sentence=_license_sentence(woodshed),
        samples=[(plain(prompt), quote(file), quote(base_samples.get(prompt, ""))) for prompt, file in samples.items()],
        follows=plain(_follows(woodshed)),
        moved=plain(words_of(woodshed.moved)) if woodshed.moved is not None else "",
        # plain peft would load half of an adapter with conditions of its own
        snippet=snippet(base, woodshed.base.revision, prompt, model_class)
        if model_class and not woodshed.conditions and woodshed.moved is None
        else "",
        shell_prompt=shlex.quote(prompt),
    )


def front_matter(woodshed: Woodshed, samples: Mapping[str, str]) -> str:
    """The YAML that the hub reads (https://huggingface.co/docs/hub/model-cards), without its dashes."""
    import yaml

    base = _repository(woodshed.base.id)
    known = on_hub(base)
    fields: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-to-audio",
        "license": woodshed.license,
        "tags": [
            *([f"base_model:adapter:{base}"] if known else []),
            "lora",
            *(["transformers"] if transformers_class(woodshed) else []),
            "text-to-music",
            *tags_of(woodshed),
        ],
    }
    if known:
        fields |= {"base_model": base, "base_model_relation": "adapter"}
    if woodshed.trigger:
        fields["instance_prompt"] = one_line(woodshed.trigger)
    if samples:
        fields["widget"] = [{"text": one_line(prompt), "output": {"url": file}} for prompt, file in samples.items()]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)


def snippet(base: str, revision: str | None, prompt: str, model_class: str) -> str:
    """Python that loads the adapter with peft and transformers alone and plays it."""
    pinned = f", revision={_python(revision)}" if revision else ""
    where = f"base = {_python(base)}"
    if base in WITH_WOODSHED:
        where = f"base = str(resolve_base({_python(base)}).folder)  # comes with Woodshed, is not on the hub"
    elif not HUB_ID.fullmatch(base):
        where += "  # a folder, which is not on the hub: ask the adapter's author for it"
    library = "from data_prep.base_files import resolve_base  # Woodshed's\n" if base in WITH_WOODSHED else ""
    return f"""\
import scipy
{library}from peft import PeftModel
from transformers import AutoProcessor, {model_class}

{where}
adapter = "path/to/this/adapter"  # or its id on the hub

processor = AutoProcessor.from_pretrained(base{pinned}, trust_remote_code=False)
model = {model_class}.from_pretrained(base{pinned})
model = PeftModel.from_pretrained(model, adapter).eval()

inputs = processor(text=[{_python(prompt)}], padding=True, return_tensors="pt")
audio = model.generate(**inputs, do_sample=True, guidance_scale=3.0, max_new_tokens=500)  # 50 tokens a second
rate = model.config.audio_encoder.sampling_rate
scipy.io.wavfile.write("music.wav", rate, audio[0].T.float().numpy())"""


def transformers_class(woodshed: Woodshed) -> str | None:
    """The class that plain peft puts the adapter on; None where transformers does not have the model."""
    format = format_named(woodshed.base.family)
    return None if format is None else format.transformers_class


def tags_of(woodshed: Woodshed) -> tuple[str, ...]:
    """What the base's family adds to the card's tags."""
    format = format_named(woodshed.base.family)
    return () if format is None else format.tags


def example_prompt(woodshed: Woodshed) -> str:
    """A prompt that suits the adapter, on one line."""
    chosen = (
        woodshed.prompts[0] if woodshed.prompts else ", ".join(filter(None, ["slow ballad, piano", woodshed.trigger]))
    )
    return one_line(chosen)[:200]


def plain(text: str) -> str:
    """Somebody's text as Markdown that shows just these characters, on one line: no markup, no HTML, no links."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~:@-])", r"\\\1", html.escape(one_line(text), quote=False))


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())


def _python(text: str) -> str:
    """A Python string literal; nothing in it can close a fence of backticks."""
    return json.dumps(text, ensure_ascii=False).replace("`", "\\u0060")


def on_hub(base: str) -> bool:
    """Whether a base's id is one on the hub."""
    return HUB_ID.fullmatch(_repository(base)) is not None


def _repository(base: str) -> str:
    """Of an id that says more than the repository, which one of several models in it."""
    return next((place.repository for format in formats() if (place := format.on_hub(base)) is not None), base)


def _base_note(base: str) -> str:
    """Where a base comes from that is not on the hub."""
    if base == "starter":
        return (
            "It is a small model that comes with Woodshed, in its folder `starter/weights`, under the MIT licence: "
            "install Woodshed to have it."
        )
    if base in WITH_WOODSHED:
        return "It is a tiny random model that Woodshed makes to try its commands with: its music is noise."
    return "" if on_hub(base) else "It was a folder on its author's machine: ask there for the same files."


def _follows(woodshed: Woodshed) -> str:
    """The conditions that it adds to its base's own."""
    return "; ".join(
        info.name + (f" ({info.pair})" if info.pair else "") + (", as a prefix" if info.stride_frames else "")
        for info in woodshed.conditions
    )


def _data(woodshed: Woodshed) -> str:
    data = woodshed.data
    return "" if data is None else f"{data.n_clips} clips, {data.audio_sec / 60:.1f} minutes of music"


def _held_out(woodshed: Woodshed) -> str:
    told = woodshed.held_out
    if told is None:
        return ""
    return (
        f"{told.adapter:.3f} with the adapter, {told.base:.3f} without, on {told.n_clips} clips it was not trained on"
    )


def _evaluation(woodshed: Woodshed) -> dict[str, Any] | None:
    told = woodshed.evaluation
    if told is None:
        return None
    lines = [plain(one.text) for one in told.findings]
    return {"headline": plain(told.headline), "lines": lines, "pieces": told.pieces}


def _license_sentence(woodshed: Woodshed) -> str:
    if woodshed.license == "cc-by-nc-4.0":
        return "The base's weights are licensed CC-BY-NC 4.0 (no commercial use), and so is this adapter."
    if woodshed.license == "unknown":
        return (
            "Its licence is not stated: ask its author, and look at the base's own, before you share or sell anything."
        )
    return "Its licence is inherited from the base."
