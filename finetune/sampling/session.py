"""One run of `woodshed sample`: load once, play everything that was asked for, say what came out.

Nothing but audio ever goes to standard output while piping: everything for people goes to standard error then.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor

from adapters.audio_out import Levels, PcmPipe, slug, start_player, stdout_pipe, take_name, write_piece
from adapters.decode.prompt_mix import PromptMix
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.play_along import ContextTrack
from adapters.sampler import Sampler, Take
from adapters.seams import Continuation, Loop, continue_from
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.codec.port import Codec
from data_prep.progress import quiet_libraries
from data_prep.safe_write import check_writable
from finetune.sampling.followed import Followed, read_context_track, read_followed, refuse_unfollowed
from finetune.sampling.line import Request, Words
from finetune.sampling.score import read_score
from finetune.terminal import forced_lines, harmless

if TYPE_CHECKING:
    from finetune.sampling.listening_page import Row


def play_line(request: Request) -> int:
    """Load, play, write; 0 when all of it is there, or when the listener has left."""
    quiet_libraries()
    console = Console(highlight=False, stderr=request.pipe is not None)
    begun = time.perf_counter()
    if request.out is not None:
        check_writable(request.out / "piece")  # before the time is spent, not after
    with console.status("loading …"):
        files = resolve_base(request.base_id, request.revision)
        refuse_unfollowed(request, files)
        sampler = Sampler.load(files, request.adapters, request.settings, force=request.force)
    assert sampler.codec is not None
    console.print(f"{harmless(_what(request))}; {sampler.label}, loaded in {time.perf_counter() - begun:.1f} s")
    for line in forced_lines(sampler.forced):
        console.print(line, soft_wrap=True)
    context = read_context_track(request, sampler)
    before = None
    if request.continued is not None:
        before = continue_from(request.continued, request.from_sec, sampler.codec, request.settings.overlap_sec)
    followed = read_followed(
        request, sampler, context, before, lambda line: console.print(harmless(line), soft_wrap=True)
    )
    score = read_score(request, sampler.engine.spec, _known_frames(before))
    if score is not None:
        sampler.conditions = score.conditions
        console.print(harmless(score.said), soft_wrap=True)
    if request.streams:
        return _stream_all(request, sampler, before, followed, console)
    _write_all(request, sampler, before, followed, console)
    return 0


def _what(request: Request) -> str:
    names = [f"{spec.label}@{spec.strength}" for spec in request.adapters]
    return f"{request.base_id}{' + ' if names else ''}{' + '.join(names)}"


def _write_all(
    request: Request,
    sampler: Sampler,
    before: Continuation | None,
    followed: Followed,
    console: Console,
) -> None:
    assert sampler.codec is not None
    loop = _loop(request, sampler.codec)
    if loop is not None:
        duration_sec = loop.duration_sec + 1 / sampler.frame_rate  # whole frames, and no sample short
        sampler.settings = request.settings.model_copy(update={"duration_sec": duration_sec})
    known = None if before is None else before.codes
    size, said = request.settings.batch_size, 0
    rows: list[Row] = []
    for first in range(0, len(request.prompts), size):
        prompts = request.prompts[first : first + size]
        seeds = [request.settings.seed + first + number for number in range(len(prompts))]
        begun = time.perf_counter()
        with console.status(f"playing {first + 1}–{first + len(prompts)} of {len(request.prompts)} …"):
            also = [followed.conditions] * len(prompts)
            takes = sampler.sample(followed.prompts(prompts), seeds=seeds, continue_from=known, also=also)
        said = _say_fewer(sampler, len(prompts), said, console)
        spent = time.perf_counter() - begun
        new_sec = sum(take.codes.shape[1] - _known_frames(before) for take in takes) / sampler.frame_rate
        for prompt, seed, take in zip(prompts, seeds, takes, strict=True):
            if agreed := followed.compare(take.waveform, sampler.codec.sample_rate_hz):
                console.print(agreed)
            audio = take.waveform if loop is None else loop.cut(take.waveform)
            if before is not None:
                audio = before.join(audio, _known_frames(before) * sampler.codec.hop_samples)
            _write(request, prompt, seed, audio, sampler, console, followed.context)
        if request.page is not None:
            rows += _rows(prompts, seeds, takes, sampler, followed)
        console.print(f"{new_sec:.1f} s of music in {spent:.1f} s: {new_sec / spent:.2f} × real time")
    if request.page is not None:
        from finetune.sampling.listening_page import write_listening_page

        assert followed.context is not None
        title = f"{next(iter(sampler.added))}: played along with {followed.context.name}"
        write_listening_page(request.page, title, rows, sampler.codec.sample_rate_hz)
        console.print(harmless(str(request.page)), soft_wrap=True)


def _rows(
    prompts: Sequence[Words],
    seeds: Sequence[int],
    takes: Sequence[Take],
    sampler: Sampler,
    followed: Followed,
) -> "list[Row]":
    """What the page shows of these pieces. The control has the same words and seed, and knows nothing of the track."""
    from finetune.sampling.listening_page import Row

    context = followed.context
    assert context is not None
    blind = {name: values for name, values in followed.conditions.items() if name not in context.conditions}
    controls = sampler.sample(followed.prompts(prompts), seeds=seeds, also=[blind] * len(prompts))
    rows = []
    for prompt, seed, take, control in zip(prompts, seeds, takes, controls, strict=True):
        title = f"{prompt if isinstance(prompt, str) else ' - '.join(prompt.texts)} (seed {seed})"
        part, other = context.cut(take.waveform), context.cut(control.waveform)
        shown = {"context": context.audio, "part": part, "mix": context.mix(part), "control, mixed": context.mix(other)}
        rows.append(Row(title, {name: audio.numpy() for name, audio in shown.items()}))
    return rows


def _say_fewer(sampler: Sampler, asked: int, said: int, console: Console) -> int:
    """Once, that memory had room for fewer pieces at once than asked for; returns what was said last."""
    most = sampler.most_at_once
    if most is None or most >= asked or most == said:
        return said
    console.print(f"{most} at once instead of {asked}: memory has no room for more; the music is the same")
    return most


def _stream_all(
    request: Request,
    sampler: Sampler,
    before: Continuation | None,
    followed: Followed,
    console: Console,
) -> int:
    assert sampler.codec is not None
    listener = _Listener()
    kept = []
    with _listening(request, sampler, listener) as pipe:
        for number, prompt in enumerate(request.prompts):
            seed = request.settings.seed + number
            chunks = _stream_one(pipe, listener, sampler, prompt, seed, before, followed, console)
            if chunks is None:
                return 0
            if agreed := followed.compare(torch.cat(chunks, dim=1), sampler.codec.sample_rate_hz):
                console.print(agreed)
            kept.append((prompt, seed, torch.cat(chunks, dim=1)))
            if request.out is not None:
                _write(request, prompt, seed, kept.pop()[2], sampler, console, followed.context)
    if listener.failed:
        request = replace(request, out=request.out or Path("out"))
        for prompt, seed, audio in kept:
            _write(request, prompt, seed, audio, sampler, console, followed.context)
        raise listener.error(request)
    return 0


@dataclass
class _Listener:
    """The program that plays, and whether it has given up: None while there is none, as with --pipe."""

    player: subprocess.Popen | None = None
    failed: bool = False

    def ended(self) -> None:
        """Wait for its end. A player that a person closes ends with 0 or by a signal."""
        if self.player is not None:
            self.failed = self.player.wait() > 0

    def error(self, request: Request) -> UserError:
        """What to say, when the music is in files."""
        assert self.player is not None
        name, out = self.player.args[0] if isinstance(self.player.args, list) else "player", str(request.out)
        return UserError(
            f"{name} could not play: it ended with code {self.player.returncode}. The music is kept.",
            where=out,
            fix="Look at what it says above (is there a sound device?); or leave --play out and open the files.",
        )


def _stream_one(
    pipe: PcmPipe,
    listener: _Listener,
    sampler: Sampler,
    prompt: Words,
    seed: int,
    before: Continuation | None,
    followed: Followed,
    console: Console,
) -> list[Tensor] | None:
    """Play one piece into the pipe; None when the listener has left. A player that failed does not end the music."""
    chunks = []
    known = None if before is None else before.codes
    played = followed.prompts([prompt])[0]
    with sampler.stream(played, seed=seed, continue_from=known, also=followed.conditions) as music:
        for chunk in music:
            try:
                if not listener.failed:
                    pipe.write(chunk)
            except BrokenPipeError:
                listener.ended()
                if not listener.failed:
                    console.print("the listener has left")
                    return None
            if not chunks and music.first_sound_sec is not None:
                console.print(f"first sound after {music.first_sound_sec:.2f} s")
            chunks.append(chunk)
    console.print(f"{music.played_sec:.1f} s in {music.spent_sec:.1f} s: {music.real_time_factor:.2f} × real time")
    return chunks


@contextmanager
def _listening(request: Request, sampler: Sampler, listener: _Listener) -> Iterator[PcmPipe]:
    """Where sound goes. A reader that has left is a clean end: nothing more is written to it, not even at exit."""
    codec = sampler.codec
    assert codec is not None
    if request.pipe is not None:
        yield stdout_pipe(codec.sample_rate_hz, codec.channels, header=request.pipe == "wav")
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    listener.player, pipe = start_player(codec.sample_rate_hz, codec.channels)
    try:
        yield pipe
    finally:
        with suppress(BrokenPipeError):
            pipe.stream.close()
        listener.ended()


def _loop(request: Request, codec: Codec) -> Loop | None:
    if request.bars is None:
        return None
    bpm, bars = request.bars
    loop = Loop(bpm, bars, codec.sample_rate_hz)
    if loop.duration_sec > 3600:
        raise UserError("a loop of more than an hour", fix="fewer --bars, or a higher --bpm")
    return loop


def _known_frames(before: Continuation | None) -> int:
    return 0 if before is None else before.codes.shape[1]


def _write(
    request: Request,
    prompt: Words,
    seed: int,
    audio: Tensor,
    sampler: Sampler,
    console: Console,
    context: ContextTrack | None,
) -> None:
    codec = sampler.codec
    assert codec is not None and request.out is not None
    title = prompt if isinstance(prompt, str) else " - ".join(prompt.texts)
    settings = request.settings
    path = take_name(request.out, f"{slug(title)}-s{seed}", settings.format)
    made_by = _made_by(request, prompt, seed, sampler)
    audio = audio if context is None else context.cut(audio)
    write_piece(path, title, audio, codec.sample_rate_hz, made_by)
    if context is not None:
        mixed = take_name(request.out, f"{path.stem}-mix", settings.format)
        write_piece(mixed, f"{title}, with {context.name}", context.mix(audio), codec.sample_rate_hz, made_by)
        console.print(f"{harmless(str(mixed))}  with {harmless(context.name)}", soft_wrap=True)
    seconds = audio.shape[1] / codec.sample_rate_hz
    console.print(f"{harmless(str(path))}  {seconds:.1f} s, {Levels.of(audio)}", soft_wrap=True)


def _made_by(request: Request, prompt: Words, seed: int, sampler: Sampler) -> Mapping[str, Any]:
    """Everything that made this piece, for its tags."""
    settings = request.settings.model_dump(
        mode="json", exclude={"device", "format", "batch_size", "seed", "decoder", "text_encoder", "codec"}
    )
    told: Any = prompt
    if isinstance(prompt, PromptSchedule):
        told = [[second, text] for second, text in zip(prompt.starts_sec, prompt.texts, strict=True)]
    if isinstance(prompt, PromptMix):
        told = {"mix": [[share, text] for share, text in zip(prompt.after, prompt.texts, strict=True)]}
    made: dict[str, Any] = {"prompt": told, "seed": seed, "base": request.base_id, "revision": request.revision}
    made["adapters"] = [f"{spec.label}@{spec.strength}" for spec in request.adapters]
    if request.continued is not None:
        made["continues"] = {"file": request.continued.name, "from_sec": request.from_sec}
    if request.context is not None:
        made["with"] = {"file": request.context.name, "from_sec": request.from_sec or 0.0}
    if request.melody is not None:
        made["melody"] = {"file": request.melody.name, "stems": request.melody_stems, "from_sec": request.from_sec or 0}
    if request.beat is not None:
        made["beat"] = Path(request.beat).name
    if request.notes is not None or request.drums is not None:
        made["notes"] = {"file": request.notes and request.notes.name, "drums": request.drums}
    if request.style is not None:
        made["style"] = {"file": request.style.name, "weight": request.style_weight}
    if request.settings.decoder is not None:
        decoder = Path(request.settings.decoder).expanduser()
        made["decoder"] = {"file": decoder.name, "sha256": hashlib.sha256(decoder.read_bytes()).hexdigest()}
    if request.bars is not None:
        made["loop"] = {"bpm": request.bars[0], "bars": request.bars[1]}
    return {**made, **settings, "precision": sampler.label}
