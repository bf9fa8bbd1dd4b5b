"""What a `woodshed sample` command line asks for: which adapters, which base, which prompts, where to."""

import codecs
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.decode.prompt_mix import PromptMix, read_prompt_mix
from adapters.decode.prompt_schedule import PromptSchedule, read_prompt_schedule
from adapters.decode.strength_schedule import StrengthSchedule
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.typed_paths import is_file

if TYPE_CHECKING:
    from adapters.metadata import Woodshed
    from adapters.sampler import AdapterSpec

Words = str | PromptSchedule[str] | PromptMix[str]
"""One piece's prompt, prompts over time, or prompts mixed."""
MARKS = ("adapter_config.json", "adapter_model.safetensors")
"""A folder with one of these is an adapter."""
STYLE_WEIGHT = 0.5
"""Of a recording's style beside a prompt's words, unless said."""
LOOP_BPM, LOOP_BARS = 120.0, 4
"""Of a loop that nothing else is said of."""


@dataclass(frozen=True)
class Request:
    """The command line, read and checked as far as that goes without loading anything."""

    settings: SampleSettings
    base_id: str
    revision: str | None
    adapters: "Sequence[AdapterSpec]"
    prompts: Sequence[Words]
    out: Path | None
    continued: Path | None
    from_sec: float | None
    bars: tuple[float, int] | None
    """Tempo and number of bars of a loop; None for a piece with an end."""
    play: bool
    pipe: str | None
    force: bool = False
    context: Path | None = None
    """The recording to play along with."""
    melody: Path | None = None
    melody_stems: str = "mix"
    notes: Path | None = None
    """A MIDI file to follow."""
    drums: str | None = None
    style: Path | None = None
    """A recording whose style is followed."""
    style_weight: float = STYLE_WEIGHT
    """Its weight beside a prompt's words, 0 to 1."""
    beat: str | None = None
    """A tempo, or a file of beats, or a recording whose beats are kept."""
    page: Path | None = None
    """Where to write the page that shows context, part, mix and control side by side."""

    @property
    def streams(self) -> bool:
        """Whether sound goes out while it is made."""
        return self.play or self.pipe is not None


def read_line(args: Namespace, settings: SampleSettings) -> Request:
    """Make sense of the words and flags.

    Raises:
        UserError: no adapter and no base, nothing to play, a file that is not there, flags that contradict each other.
    """
    words, named = _adapters(args)
    prompts = _prompts(args, words)
    streams = args.play or args.pipe is not None
    _check(args, prompts, streams)
    adapters = _specs(named)
    base_id, revision = (args.base, args.revision) if args.base else _base_of(adapters, args.revision)
    return Request(
        settings=settings,
        base_id=base_id,
        revision=revision,
        adapters=adapters,
        prompts=prompts,
        out=args.out or (None if streams else Path("out")),
        continued=args.continued,
        from_sec=args.from_sec,
        bars=_bars(args) if args.loop else None,
        play=args.play,
        pipe=args.pipe,
        force=args.force,
        context=args.context,
        melody=args.melody,
        melody_stems=args.melody_stems,
        notes=args.notes,
        drums=args.drums,
        style=args.style,
        style_weight=STYLE_WEIGHT if args.style_weight is None else args.style_weight,
        beat=args.beat,
        page=args.page,
    )


def is_adapter(path: Path) -> bool:
    """Whether this folder holds an adapter."""
    return any(is_file(path / mark) for mark in MARKS)


Named = tuple[Path, StrengthSchedule | None]
"""An adapter's folder and its strength, before anything heavy is imported; None: the strength it recommends."""


def _specs(named: Sequence[Named]) -> "list[AdapterSpec]":
    from adapters.sampler import AdapterSpec

    return [
        AdapterSpec(path, strength or StrengthSchedule.constant(recommended_strength(path))) for path, strength in named
    ]


def _adapters(args: Namespace) -> tuple[list[str], list[Named]]:
    """The words that are prompts, and the adapters: the first word, then every --adapter."""
    words = list(args.words or [])
    specs = [_spec(text) for text in args.adapter or []]
    if words and (first := _spec(words[0])) and is_adapter(first[0]):
        specs.insert(0, first)
        words.pop(0)
    elif not specs and not args.base:
        raise UserError(
            f"{words[0]!r} is not an adapter's folder" if words else "neither an adapter nor a base was named",
            fix=_adapter_inside(words)
            or 'woodshed sample runs/mine/adapter "a prompt", or woodshed sample --base ID "a prompt"',
        )
    elif words and ("/" in words[0] or "\\" in words[0]) and (words[1:] or args.prompts_file or args.story or args.mix):
        raise UserError(
            f"{words[0]!r} stands where an adapter does and looks like a folder, but holds no adapter",
            fix="check its spelling; if it is a prompt, put it behind another one, or into --prompts-file",
        )
    missing = next((path for path, _ in specs if not is_adapter(path)), None)
    if missing is not None:
        raise UserError("this is no adapter's folder", where=str(missing), fix=f"it must hold {' and '.join(MARKS)}")
    if args.strength is not None:
        if not specs:
            raise UserError("--strength needs an adapter", fix="name one, or leave --strength out")
        specs[0] = (specs[0][0], StrengthSchedule.read(args.strength, "--strength"))
    return words, specs


def _adapter_inside(words: Sequence[str]) -> str:
    """What to write where the first word is a run, whose adapter is a folder in it."""
    inside = Path(words[0]) / "adapter" if words else None
    return f"a run's adapter is inside it: {inside}" if inside is not None and is_adapter(inside) else ""


def recommended_strength(folder: Path) -> float:
    """The strength that `woodshed evaluate` chose for an adapter; 1 where nobody did, or nobody can tell."""
    told = _description(folder)
    return (told.recommended_strength if told else None) or 1.0


def added_by(folder: Path) -> list[str]:
    """What an adapter follows beside what its base does, as it says itself; its weights are not read."""
    told = _description(folder)
    return [info.name for info in told.conditions] if told else []


def _description(folder: Path) -> "Woodshed | None":
    from adapters.adapter_files import DESCRIPTION
    from adapters.metadata import parse
    from adapters.safe_files import read_json

    if not is_adapter(folder) or not (folder / DESCRIPTION).is_file():
        return None
    return parse(read_json(folder / DESCRIPTION), str(folder))


def _spec(text: str) -> Named:
    """`folder`, `folder@0.8` or `folder@0:1,10:0`. A folder of exactly that name comes first."""
    path, at, strength = text.rpartition("@")
    if not at or is_adapter(Path(text)) or not is_adapter(Path(path)):
        return Path(text), None
    return Path(path), StrengthSchedule.read(strength, f"the strength of {path}")


def _prompts(args: Namespace, words: Sequence[str]) -> list[Words]:
    prompts: list[Words] = list(words)
    if args.prompts_file is not None:
        prompts += read_prompts(args.prompts_file)
    if args.story:
        prompts.append(read_prompt_schedule(args.story))
    if args.mix:
        prompts.append(read_prompt_mix(args.mix))
    recordings = (args.continued, args.melody, args.context, args.beat, args.style)
    if not prompts and any(given is not None for given in recordings):
        prompts.append("")  # the recording says enough
    return prompts


def read_prompts(path: Path) -> list[str]:
    """A prompt per line; empty lines are skipped. UTF-8, or UTF-16 as Windows writes it, with or without a mark.

    Raises:
        UserError: it cannot be read as text.
    """
    try:
        data = path.read_bytes()
        marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        lines = data.decode("utf-16" if data.startswith(marks) else "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "Save it as text in UTF-8, a prompt per line."
        raise UserError(f"the prompts cannot be read ({error})", where=str(path), fix=fix) from error
    return [line.strip() for line in lines if line.strip()]


def _check(args: Namespace, prompts: Sequence[Words], streams: bool) -> None:
    if not prompts:
        raise UserError("there is nothing to play", fix='give a prompt, e.g. "slow ballad, piano"; or --prompts-file')
    beat_file = None if args.beat is None or _is_number(args.beat) else Path(args.beat)
    beginnings = (args.continued, args.melody, args.context, beat_file)
    if args.from_sec is not None and not any(beginnings):
        fix = "add --continue FILE, --melody FILE, --beat FILE or --with FILE"
        raise UserError("--from says where to go on in a recording, but there is none", fix=fix)
    if args.context is not None and (args.continued is not None or args.loop):
        raise UserError("--with plays along from a recording's start on", fix="leave out --continue and --loop")
    if args.from_sec is not None and sum(file is not None for file in (args.melody, args.context, beat_file)) > 1:
        fix = "cut the recordings to where they begin instead"
        raise UserError("--from could belong to any of --melody, --beat and --with", fix=fix)
    if beat_file is not None and not is_file(beat_file):
        fix = "give a tempo (--beat 120), a table of beats, or a recording"
        raise UserError("the beats' file is not there", where=str(beat_file), fix=fix)
    if args.page is not None and (args.context is None or streams):
        raise UserError("--page shows what plays along: it needs --with, and files", fix="leave out --play and --pipe")
    if args.context is not None and not is_file(args.context):
        raise UserError("the recording to play along with is not there", where=str(args.context))
    if args.from_sec is not None and args.continued is not None and not 0 < args.from_sec < float("inf"):
        raise UserError("--from must be above 0", fix="there is nothing before second 0")
    if args.from_sec is not None and not 0 <= args.from_sec < float("inf"):
        raise UserError("--from must be 0 or more", fix="leave it out for a melody from its beginning")
    if args.notes is not None and not is_file(args.notes):
        raise UserError("the MIDI file is not there", where=str(args.notes))
    if args.style is not None and not is_file(args.style):
        raise UserError("the recording to take a style from is not there", where=str(args.style))
    if args.style is not None and args.story:
        raise UserError("a --story has styles of its own", fix="leave out --style, or give the words with --mix")
    if args.style_weight is not None and (args.style is None or not 0 < args.style_weight <= 1):
        fix = "e.g. --style FILE --style-weight 0.3"
        raise UserError("--style-weight says how much --style counts beside words: above 0, at most 1", fix=fix)
    if args.melody is not None and not is_file(args.melody):
        raise UserError("the melody's recording is not there", where=str(args.melody))
    if args.melody is not None and args.loop:
        raise UserError("a loop cannot follow a melody", fix="leave out --loop, or --melody")
    if args.continued is not None and not is_file(args.continued):
        raise UserError("the recording to continue is not there", where=str(args.continued))
    if args.loop and (streams or args.continued is not None):
        raise UserError("--loop is written to a file as a whole", fix="leave out --play, --pipe and --continue")
    bpm, bars = _bars(args)
    if not args.loop and not (args.bpm is None and args.bars is None):
        fix = "add --loop; any other piece takes its tempo from the prompt, and its length from --duration"
        raise UserError("--bpm and --bars are about a loop", fix=fix)
    if args.loop and not (20 <= bpm <= 400 and 1 <= bars <= 512):
        raise UserError("a loop needs 20 to 400 --bpm and 1 to 512 --bars", fix="e.g. --bpm 110 --bars 4")
    if args.play and args.pipe:
        raise UserError("--play and --pipe want the same sound", fix="give one of them")
    if args.melody is None and args.melody_stems != "mix":
        raise UserError("--melody-stems is about the recording that --melody names", fix="add --melody FILE")
    if args.play:
        from adapters.audio_out import find_player

        find_player()  # before a model is loaded


def _bars(args: Namespace) -> tuple[float, int]:
    """Tempo and number of bars of a loop."""
    return (LOOP_BPM if args.bpm is None else args.bpm, LOOP_BARS if args.bars is None else args.bars)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _base_of(adapters: "Sequence[AdapterSpec]", revision: str | None) -> tuple[str, str | None]:
    """The base that the first adapter names."""
    from adapters.adapter_files import load
    from finetune.base_place import base_of_adapter

    base_id, own = base_of_adapter(load(adapters[0].path, force=True))
    return base_id, revision or own
