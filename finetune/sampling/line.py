"""What a `woodshed sample` command line asks for: which adapters, which base, which prompts, where to."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.decode.prompt_schedule import PromptSchedule, read_prompt_schedule
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.sampler import AdapterSpec
from configs.errors import UserError
from configs.sample import SampleSettings

MARKS = ("adapter_config.json", "adapter_model.safetensors")
"""A folder with one of these is an adapter."""


@dataclass(frozen=True)
class Request:
    """The command line, read and checked as far as that goes without loading anything."""

    settings: SampleSettings
    base_id: str
    revision: str | None
    adapters: Sequence[AdapterSpec]
    prompts: Sequence[str | PromptSchedule[str]]
    out: Path | None
    continued: Path | None
    from_sec: float | None
    bars: tuple[float, int] | None
    """Tempo and number of bars of a loop; None for a piece with an end."""
    play: bool
    pipe: str | None
    force: bool = False

    @property
    def streams(self) -> bool:
        """Whether sound goes out while it is made."""
        return self.play or self.pipe is not None


def read_line(args: Namespace, settings: SampleSettings) -> Request:
    """Make sense of the words and flags.

    Raises:
        UserError: no adapter and no base, nothing to play, a file that is not there, flags that contradict each other.
    """
    words, adapters = _adapters(args)
    prompts = _prompts(args, words)
    streams = args.play or args.pipe is not None
    _check(args, prompts, streams)
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
        bars=(args.bpm, args.bars) if args.loop else None,
        play=args.play,
        pipe=args.pipe,
        force=args.force,
    )


def is_adapter(path: Path) -> bool:
    """Whether this folder holds an adapter."""
    return any((path / mark).is_file() for mark in MARKS)


def _adapters(args: Namespace) -> tuple[list[str], list[AdapterSpec]]:
    """The words that are prompts, and the adapters: the first word, then every --adapter."""
    words = list(args.words or [])
    specs = [_spec(text) for text in args.adapter or []]
    if words and (first := _spec(words[0])) and is_adapter(first.path):
        specs.insert(0, first)
        words.pop(0)
    elif not specs and not args.base:
        raise UserError(
            f"{words[0]!r} is not an adapter's folder" if words else "neither an adapter nor a base was named",
            fix='woodshed sample runs/mine/adapter "a prompt", or woodshed sample --base ID "a prompt"',
        )
    elif words and ("/" in words[0] or "\\" in words[0]) and (words[1:] or args.prompts_file or args.story):
        raise UserError(
            f"{words[0]!r} stands where an adapter does and looks like a folder, but holds no adapter",
            fix="check its spelling; if it is a prompt, put it behind another one, or into --prompts-file",
        )
    missing = next((spec.path for spec in specs if not is_adapter(spec.path)), None)
    if missing is not None:
        raise UserError("this is no adapter's folder", where=str(missing), fix=f"it must hold {' and '.join(MARKS)}")
    if args.strength is not None:
        if not specs:
            raise UserError("--strength needs an adapter", fix="name one, or leave --strength out")
        specs[0] = replace(specs[0], strength=StrengthSchedule.read(args.strength, "--strength"))
    return words, specs


def recommended_strength(folder: Path) -> float:
    """The strength that `woodshed evaluate` chose for an adapter; 1 where nobody did, or nobody can tell."""
    from adapters.adapter_files import DESCRIPTION
    from adapters.metadata import parse
    from adapters.safe_files import read_json

    if not is_adapter(folder) or not (folder / DESCRIPTION).is_file():
        return 1.0
    return parse(read_json(folder / DESCRIPTION), str(folder)).recommended_strength or 1.0


def _spec(text: str) -> AdapterSpec:
    """`folder`, `folder@0.8` or `folder@0:1,10:0`. A folder of exactly that name comes first."""
    path, at, strength = text.rpartition("@")
    if not at or is_adapter(Path(text)) or not is_adapter(Path(path)):
        return AdapterSpec(Path(text), StrengthSchedule.constant(recommended_strength(Path(text))))
    return AdapterSpec(Path(path), StrengthSchedule.read(strength, f"the strength of {path}"))


def _prompts(args: Namespace, words: Sequence[str]) -> list[str | PromptSchedule[str]]:
    prompts: list[str | PromptSchedule[str]] = list(words)
    if args.prompts_file is not None:
        try:
            lines = args.prompts_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the prompts cannot be read ({error})", where=str(args.prompts_file)) from error
        prompts += [line.strip() for line in lines if line.strip()]
    if args.story:
        prompts.append(read_prompt_schedule(args.story))
    if not prompts and args.continued is not None:
        prompts.append("")  # the recording says enough
    return prompts


def _check(args: Namespace, prompts: Sequence[str | PromptSchedule[str]], streams: bool) -> None:
    if not prompts:
        raise UserError("there is nothing to play", fix='give a prompt, e.g. "slow ballad, piano"; or --prompts-file')
    if args.from_sec is not None and args.continued is None:
        raise UserError("--from says where to go on in a recording, but there is none", fix="add --continue FILE")
    if args.from_sec is not None and args.from_sec <= 0:
        raise UserError("--from must be above 0", fix="there is nothing to hear before second 0")
    if args.continued is not None and not args.continued.is_file():
        raise UserError("the recording to continue is not there", where=str(args.continued))
    if args.loop and (streams or args.continued is not None):
        raise UserError("--loop is written to a file as a whole", fix="leave out --play, --pipe and --continue")
    if args.loop and not (20 <= args.bpm <= 400 and 1 <= args.bars <= 512):
        raise UserError("a loop needs 20 to 400 --bpm and 1 to 512 --bars", fix="e.g. --bpm 110 --bars 4")
    if args.play and args.pipe:
        raise UserError("--play and --pipe want the same sound", fix="give one of them")


def _base_of(adapters: Sequence[AdapterSpec], revision: str | None) -> tuple[str, str | None]:
    """The base that the first adapter names."""
    from adapters.adapter_files import load

    found = load(adapters[0].path, force=True)
    if not found.base_id:
        raise UserError("this adapter does not say which base it belongs to", where=str(found.folder), fix="add --base")
    return found.base_id, revision or found.revision
