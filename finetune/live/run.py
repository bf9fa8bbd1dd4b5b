"""One run of `woodshed live`: load once, say the address, serve until stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from adapters.play_along import read_context
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.live import LiveSettings
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.context_names import CONTEXT
from data_prep.progress import quiet_libraries
from finetune.live.controls import Controls, Weighted
from finetune.live.player import PLAYABLE
from finetune.live.session import About, LiveSession
from finetune.terminal import forced_lines, harmless

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter

TWO_MOODS = ("slow ambient music, warm pads, piano", "energetic drums and bass")
"""Prompts to begin with, where nothing else is known."""


def open_session(
    adapters: Sequence[AdapterSpec],
    settings: LiveSettings,
    *,
    base: str | None = None,
    revision: str | None = None,
    prompts: Sequence[str] = (),
    folder: Path = Path("out"),
    force: bool = False,
    context: Path | None = None,
    from_sec: float | None = None,
) -> LiveSession:
    """A session that is loaded and silent: the way in from Python.

    `context` is the recording that an adapter of pairs plays along with, from `from_sec` to its end, again and again.

    Raises:
        UserError: as `Sampler.load`; neither a base nor an adapter; a codec that cannot play while it is made.
    """
    from adapters.adapter_files import load
    from finetune.base_place import base_of_adapter

    if not adapters and base is None:
        raise UserError("neither an adapter nor a base was named", fix="woodshed live runs/mine/adapter, or --base ID")
    described = [load(spec.path, force=True) for spec in adapters]
    following = next((adapter for adapter in described if CONTEXT in adapter.added), None)
    if following is not None and context is None:
        raise UserError(f"{following.label} plays along with a recording", fix="say with which: --with FILE")
    if following is None and context is not None:
        raise UserError(
            f"nothing here follows a context track: --with {context.name} would change nothing",
            fix='train an adapter on pairs: woodshed prep SONGS DATA --pair "drums|rest"',
        )
    if base is None:
        base, own = base_of_adapter(described[0])
        revision = revision or own
    files = resolve_base(base, revision)
    decoding = sample_settings(settings)

    def load_sampler() -> Sampler:
        return Sampler.load(files, adapters, decoding, live=True, force=force)

    sampler = load_sampler()
    codec = sampler.codec
    assert codec is not None
    codec.stream()  # says it where a codec cannot
    strengths = {name: schedule.at(0.0) for name, schedule in sampler.schedules.items()}
    plays = [kind for kind in PLAYABLE if sampler.engine.spec.has(kind)]
    track = None if context is None else read_context(context, from_sec, None, codec)
    about = About(
        files.id,
        revision,
        list(strengths),
        codec.sample_rate_hz,
        codec.channels,
        sampler.forced,
        plays,
        None if track is None else track.name,
    )
    mix = [Weighted(text, float(number == 0)) for number, text in enumerate(prompts or _prompts_of(described))]
    controls = Controls.of(settings, mix, strengths)
    return LiveSession(
        load_sampler,
        about,
        controls,
        seed=settings.seed,
        idle_sec=settings.idle_sec,
        folder=folder,
        sampler=sampler,
        context=track,
    )


def sample_settings(settings: LiveSettings) -> SampleSettings:
    """What the sampler is told."""
    shared = {"guidance", "temperature", "top_k", "top_p", "window_sec", "overlap_sec", "seed", "precision", "device"}
    shared |= {"text_encoder", "codec"}
    return SampleSettings.model_validate(settings.model_dump(include=shared))


def serve(session: LiveSession, settings: LiveSettings) -> int:
    """Until Ctrl-C.

    Raises:
        UserError: the address is taken.
    """
    from finetune.live.osc import OscInput
    from finetune.live.server import LiveServer

    console = Console(highlight=False)
    server = LiveServer(session, settings.host, settings.port)
    osc = None if settings.osc_port is None else OscInput(session, settings.host, settings.osc_port)
    about = session.about
    for line in forced_lines(about.forced):
        console.print(line, soft_wrap=True)
    console.print(harmless(" + ".join([about.base, *about.adapters])), soft_wrap=True)
    console.print(f"Open {server.address} in a browser. Ctrl-C ends it.", soft_wrap=True)
    if server.access.token:
        console.print("[yellow]Other machines can reach it:[/] whoever has this address can play.", soft_wrap=True)
    if osc is not None:
        console.print(f"OSC: UDP port {settings.osc_port} of {settings.host}")
    try:
        server.serve_until_stopped()
    finally:
        if osc is not None:
            osc.close()
    return 0


def play(adapters: Sequence[AdapterSpec], settings: LiveSettings, console: Console, **more: object) -> int:
    """Load and serve."""
    quiet_libraries()
    with console.status("loading …"):
        session = open_session(adapters, settings, **more)  # pyright: ignore[reportArgumentType]
    try:
        return serve(session, settings)
    finally:
        session.close()


def _prompts_of(adapters: "Sequence[Adapter]") -> Sequence[str]:
    """What the adapters' own descriptions suggest."""
    told = [adapter.woodshed for adapter in adapters if adapter.woodshed is not None]
    found = [text for one in told for text in ([*one.prompts[:2]] or [one.trigger]) if text]
    return list(dict.fromkeys(found))[:4] or TWO_MOODS
