"""Text in, audio out: the decode engine with a text encoder before it and a codec behind it.

`Sampler.load` reads a base and adapters from disk, for `woodshed sample`; `Sampler.around` plays through a model that
is in memory for another reason, such as one in training, and leaves it exactly as it was: no module's flag, no weight
and no random generator is touched. Every sample, preview and evaluation goes through here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn

from adapters.decode.arithmetic import choose
from adapters.decode.borrow import borrow, untouched
from adapters.decode.performance import Frame, Performance, Piece
from adapters.decode.sampling import Sampling
from adapters.decode.schedule import Schedule
from adapters.decode.story import Story
from adapters.decode.stream import AudioStream
from adapters.decode.weights import DecoderWeights, Packing, pack
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.codec.tuned_decoder import use_decoder
from data_prep.device import pick_device

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter

Prompt = str | Tensor | Story[str]
"""Words; or text states [L, D_text] that somebody has already made; or prompts over time."""


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter folder, how strong it sounds over time, and what it is called in messages and tags."""

    path: Path
    strength: Schedule = field(default_factory=lambda: Schedule.constant(1.0))

    @property
    def label(self) -> str:
        """For people: the folder's name, and its parent's where that says nothing (`runs/mine/adapter`)."""
        path = self.path.resolve()
        return path.parent.name if path.name == "adapter" and path.parent.name else path.name


class Take(NamedTuple):
    """One finished piece."""

    waveform: Float[Tensor, "C N"]
    codes: Int16[np.ndarray, "K T"]


class Sampler:
    """Plays prompts with one base and its adapters. Construct with `load` or `around`."""

    def __init__(
        self,
        weights: DecoderWeights,
        encode: Callable[[Sequence[str]], list[Tensor]],
        codec: Codec | None,
        settings: SampleSettings,
        *,
        frame_rate: float,
        schedules: Mapping[str, Schedule] | None = None,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
        label: str = "",
        forced: Sequence[str] = (),
    ) -> None:
        self.weights = weights
        self.encode = encode
        self.codec = codec
        self.settings = settings
        self.frame_rate = frame_rate
        self.schedules = dict(schedules or {})
        self.label = label
        self.forced = list(forced)
        self._guard = guard

    @classmethod
    def load(
        cls,
        files: BaseFiles,
        adapters: Sequence[AdapterSpec] = (),
        settings: SampleSettings | None = None,
        *,
        live: bool = False,
        force: bool = False,
    ) -> "Sampler":
        """Read the base, its text encoder and codec, and the adapters; check that they belong together.

        Adapters whose strengths never change are merged in fp32; one that changes, or `live`, keeps all of them
        turnable (`turn_adapter`). `force` plays an adapter that was made for other weights of the same shapes, which
        `forced` then tells.

        Raises:
            UserError: a file is missing or does not fit the base; this machine cannot do what the settings ask.
        """
        from adapters.lm import load_lm
        from data_prep.text_encoder import TextEncoder

        settings = settings or SampleSettings.model_validate({})
        device = pick_device(settings.device)
        arithmetic = choose(settings.precision, device)
        # Merging wants fp32; without adapters, half-precision arithmetic may as well be read in half precision.
        half = arithmetic.kind == "plain" and not adapters
        lm = load_lm(files, weights=arithmetic.label if half else "fp32")  # pyright: ignore[reportArgumentType]
        named = _named(adapters)
        read = {name: _read(spec, files, force=force) for name, spec in named.items()}
        updates = {name: adapter.updates for name, (adapter, _) in read.items()}
        forced = [f"{name}: {note}" for name, (_, notes) in read.items() for note in notes]
        constant = not live and all(spec.strength.is_constant for spec in adapters)
        merged_at = {name: spec.strength.at(0.0) for name, spec in named.items()} if constant else None
        weights = pack(lm, Packing(arithmetic.kind, device, arithmetic.dtype, updates, merged_at))
        del lm
        encoder = TextEncoder.load(files, device)
        schedules = {} if constant else {name: spec.strength for name, spec in named.items()}
        codec = load_base_codec(files, device)
        if settings.decoder is not None:
            use_decoder(codec, Path(settings.decoder).expanduser())
        rate = codec.frame_rate
        return cls(
            weights,
            encoder.encode,
            codec,
            settings,
            frame_rate=rate,
            schedules=schedules,
            label=arithmetic.label,
            forced=forced,
        )

    @classmethod
    def around(
        cls,
        lm: nn.Module,
        settings: SampleSettings,
        *,
        codec: Codec | None = None,
        encode: Callable[[Sequence[str]], list[Tensor]] | None = None,
        frame_rate: float = 50.0,
    ) -> "Sampler":
        """Play through a model that is in memory, wherever and in whatever dtype it is, adapters and all.

        `codec` may live on another device; without it only `codes` works. Without `encode`, prompts must be text
        states. Settings of device and precision have no meaning here.
        """
        with untouched(lm):
            weights = borrow(lm)
        rate = codec.frame_rate if codec is not None else frame_rate
        return cls(
            weights,
            encode or _no_words,
            codec,
            settings,
            frame_rate=rate,
            guard=lambda: untouched(lm),
            label="borrowed",
        )

    def turn_adapter(self, name: str, strength: float) -> None:
        """How strong an adapter sounds from here on, in streams that play as well. Needs `live`, or a schedule.

        Raises:
            UserError: no turnable adapter has this label.
        """
        if name not in self.schedules:
            known = ", ".join(self.schedules) or "none: load with live=True"
            raise UserError(f"no adapter {name!r} can be turned", fix=f"turnable: {known}")
        self.schedules[name] = Schedule.constant(strength)

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int] | None = None,
        continue_from: Int16[np.ndarray, "K P"] | None = None,
    ) -> list[Take]:
        """Play all prompts at once, each for `settings.duration_sec`; the n-th has seed `settings.seed` + n.

        `continue_from` is heard first and is part of what comes back.

        Raises:
            UserError: the model's output is not a number; see `Window.check`.
        """
        if self.codec is None:
            raise ValueError("this sampler was made without a codec: use `codes`")
        played = self.codes(prompts, seeds=seeds, continue_from=continue_from)
        return [Take(self.codec.decode(codes), codes) for codes in played]

    def codes(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int] | None = None,
        continue_from: Int16[np.ndarray, "K P"] | None = None,
        n_frames: int | None = None,
    ) -> list[Int16[np.ndarray, "K _"]]:
        """As `sample`, without decoding: codec tokens. `n_frames` of new music replaces `duration_sec`."""
        with self._guard():
            performance = self._perform(prompts, seeds, continue_from, n_frames)
            while not performance.done:
                performance.play(performance.frame.window)
            return [codes.to("cpu", torch.int16).numpy() for codes in performance.codes()]

    @contextmanager
    def stream(
        self, prompt: Prompt, *, seed: int | None = None, continue_from: Int16[np.ndarray, "K P"] | None = None
    ) -> Iterator[AudioStream]:
        """Hear one piece while it is played: iterate over the stream for chunks [C, n]; turn its knobs in between."""
        if self.codec is None:
            raise ValueError("this sampler was made without a codec: it cannot stream audio")
        with self._guard():
            seeds = None if seed is None else [seed]
            performance = self._perform([prompt], seeds, continue_from, None)
            yield AudioStream(performance, self.codec, self.stories)

    def stories(self, prompts: Sequence[Prompt]) -> list[Story[Tensor]]:
        """Prompts with their words turned into text states."""
        told = [prompt if isinstance(prompt, Story) else Story.of(prompt) for prompt in prompts]
        words = list(dict.fromkeys(text for story in told for text in story.texts if isinstance(text, str)))
        states = dict(zip(words, self.encode(words), strict=True)) if words else {}
        return [
            Story(
                story.starts_sec,
                [states[text] if isinstance(text, str) else text for text in story.texts],
                story.fade_sec,
            )
            for story in told
        ]

    def _perform(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int] | None,
        continue_from: Int16[np.ndarray, "K P"] | None,
        n_frames: int | None,
    ) -> Performance:
        settings = self.settings
        known = None if continue_from is None else torch.from_numpy(continue_from.astype(np.int64))
        heard = 0 if known is None else known.shape[1]
        total = heard + (n_frames or max(1, round(settings.duration_sec * self.frame_rate)))
        seeds = seeds if seeds is not None else [settings.seed + number for number in range(len(prompts))]
        stories = self.stories(prompts)
        if len(seeds) != len(stories):
            raise ValueError(f"{len(stories)} prompts but {len(seeds)} seeds")
        pieces = [Piece(story, total, seed, known) for story, seed in zip(stories, seeds, strict=True)]
        return Performance(self.weights, pieces, sampling_of(settings), self._frame(), self._direct)

    def _frame(self) -> Frame:
        settings = self.settings
        if settings.overlap_sec >= settings.window_sec:
            raise UserError(
                f"overlap_sec ({settings.overlap_sec:g}) must be shorter than window_sec ({settings.window_sec:g})",
                fix="e.g. --window_sec 30 --overlap_sec 12",
            )
        window = round(settings.window_sec * self.frame_rate)
        overlap = round(settings.overlap_sec * self.frame_rate)
        return Frame(max(window, 2), min(max(overlap, 1), max(window, 2) - 1), self.frame_rate)

    def _direct(self, second: float) -> bool:
        """Turn the adapters to their strengths at this moment."""
        return self.weights.bank.set({name: schedule.at(second) for name, schedule in self.schedules.items()})


def sampling_of(settings: SampleSettings) -> Sampling:
    """The part of the settings that decides how tokens are drawn."""
    each = settings.per_codebook
    return Sampling(
        settings.guidance,
        each.temperature or settings.temperature,
        each.top_k or settings.top_k,
        each.top_p or settings.top_p,
    )


def _named(adapters: Sequence[AdapterSpec]) -> dict[str, AdapterSpec]:
    """Adapters by label; the same label twice gets a number."""
    named: dict[str, AdapterSpec] = {}
    for spec in adapters:
        name, number = spec.label, 2
        while name in named:
            name, number = f"{spec.label}-{number}", number + 1
        named[name] = spec
    return named


def _read(spec: AdapterSpec, files: BaseFiles, *, force: bool) -> "tuple[Adapter, list[str]]":
    """An adapter that fits the base, and what `force` let pass."""
    from adapters.adapter_files import load
    from adapters.fit import check_fit

    adapter = load(spec.path, force=force)
    return adapter, check_fit(adapter, files, force=force)


def _no_words(prompts: Sequence[str]) -> list[Tensor]:
    raise ValueError(f"this sampler has no text encoder: give text states, not {prompts[0]!r}")
