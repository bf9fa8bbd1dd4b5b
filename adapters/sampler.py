"""Text in, audio out: a decode engine with a text encoder before it and a codec behind it.

`Sampler.load` reads a base and adapters from disk, for `woodshed sample`; `Sampler.around` plays through a model that
is in memory for another reason, such as one in training, and leaves it exactly as it was: no module's flag, no weight
and no random generator is touched. Every sample, preview and evaluation goes through here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.conditions import RowConditions
from adapters.decode.arithmetic import choose
from adapters.decode.engine import Engine, Packing
from adapters.decode.generation import ENDLESS, Generation, MixTexts, Request, WindowPlan
from adapters.decode.prompt_mix import PromptMix
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.decode.stream import AudioStream
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.decode.untouched import untouched
from adapters.device_memory import how_many_fit, in_halves, one_piece
from adapters.family.lm import LM
from adapters.family.port import family_named, family_of
from adapters.line_up import AdapterSpec, attach_added, labelled, whole_weights_of
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.codec.tuned_decoder import use_decoder
from data_prep.device import pick_device

if TYPE_CHECKING:
    from adapters.added_conditions.attach import AddedConditions

Prompt = str | Tensor | PromptSchedule[str] | PromptMix[str] | PromptMix[Tensor] | PromptMix[str | Tensor]
"""Words; or text states [L, D_text] that somebody has already made; or prompts over time, or several with weights."""


class Take(NamedTuple):
    """One finished piece."""

    waveform: Float[Tensor, "C N"]
    codes: Int[np.ndarray, "K T"]


class Sampler:
    """Plays prompts with one base and its adapters. Construct with `load` or `around`."""

    def __init__(
        self,
        engine: Engine,
        encode: Callable[[Sequence[str]], list[Tensor]],
        codec: Codec | None,
        settings: SampleSettings,
        *,
        schedules: Mapping[str, StrengthSchedule] | None = None,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
        label: str = "",
        forced: Sequence[str] = (),
        added: "Mapping[str, AddedConditions] | None" = None,
        mix: MixTexts | None = None,
        encode_sound: "Callable[[np.ndarray, int], Tensor] | None" = None,
    ) -> None:
        self.engine = engine
        self.encode = encode
        self.codec = codec
        self.settings = settings
        self.frame_rate = engine.spec.frame_rate
        self.schedules = dict(schedules or {})
        self.label = label
        self.forced = list(forced)
        self.added = dict(added or {})
        self.conditions: RowConditions = {}
        """What every piece follows that has no condition of that kind of its own; for the whole piece."""
        self._guard = guard
        self._mix = mix
        self.encode_sound = encode_sound
        """A recording [C, N] at a rate in Hz as an entry in the place of a text; None: the base follows words alone."""
        self.most_at_once: int | None = None
        """Pieces that memory has room for at once; None until more were asked for than that."""

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

        Adapters whose strengths never change are merged in fp32; with one that changes, or with `live`, all of them can
        be set while playing (`set_strength`). `force` plays an adapter that was made for other weights of the same
        shapes; `forced` says then what was let pass.

        Raises:
            UserError: a file is missing or does not fit the base; this machine cannot do what the settings ask.
        """
        from adapters.adapter_files import load
        from adapters.family.load import load_lm
        from adapters.fit import check_fit
        from adapters.moved import moved_files
        from data_prep.text_encoders.port import MixingTextEncoder, load_text_encoder

        settings = settings or SampleSettings.model_validate({})
        device = pick_device(settings.device)
        arithmetic = choose(settings.precision, device)
        named = labelled(adapters)
        loaded = {name: load(spec.path, force=force) for name, spec in named.items()}
        files = moved_files(files, list(loaded.values()), text_encoder=settings.text_encoder, codec=settings.codec)
        read = {name: (adapter, check_fit(adapter, files, force=force)) for name, adapter in loaded.items()}
        # Merging wants fp32; without adapters, half-precision arithmetic may as well be read in half precision.
        half = arithmetic.kind == "plain" and not adapters
        whole = whole_weights_of(list(loaded.values()))
        lm = load_lm(files, weights=arithmetic.label if half else "fp32", whole=whole)  # pyright: ignore[reportArgumentType]
        updates = {name: adapter.updates for name, (adapter, _) in read.items()}
        forced = [f"{name}: {note}" for name, (_, notes) in read.items() for note in notes]
        constant = not live and all(spec.strength.is_constant for spec in adapters)
        merged_at = {name: spec.strength.at(0.0) for name, spec in named.items()} if constant else None
        added = attach_added(lm, {name: adapter for name, (adapter, _) in read.items()}, named)
        packing = Packing(arithmetic.kind, device, arithmetic.dtype, updates, merged_at)
        engine = family_of(files).pack(lm, packing)
        del lm
        encoder = load_text_encoder(files, device)
        schedules = {} if constant else {name: spec.strength for name, spec in named.items()}
        codec = load_base_codec(files, device)
        if settings.decoder is not None:
            use_decoder(codec, Path(settings.decoder).expanduser())
        return cls(
            engine,
            encoder.encode,
            codec,
            settings,
            schedules=schedules,
            label=arithmetic.label,
            forced=forced,
            added=added,
            mix=encoder.mix if isinstance(encoder, MixingTextEncoder) else None,
            encode_sound=encoder.encode_sound if isinstance(encoder, MixingTextEncoder) else None,
        )

    @classmethod
    def around(
        cls,
        lm: LM,
        settings: SampleSettings,
        *,
        codec: Codec | None = None,
        encode: Callable[[Sequence[str]], list[Tensor]] | None = None,
    ) -> "Sampler":
        """Play through a model that is in memory, wherever and in whatever dtype it is, adapters and all.

        `codec` may live on another device; without it only `codes` works. Without `encode`, prompts must be text
        states. Settings of device and precision have no meaning here.
        """
        with untouched(lm):
            engine = family_named(lm.spec.family).borrow(lm)
        return cls(
            engine,
            encode or _no_words,
            codec,
            settings,
            guard=lambda: untouched(lm),
            label="borrowed",
        )

    def set_strength(self, name: str, strength: float) -> None:
        """How strong an adapter sounds from here on, in streams that play as well. Needs `live`, or a schedule.

        Raises:
            UserError: no adapter of this label can be set while playing.
        """
        if name not in self.schedules:
            known = ", ".join(self.schedules) or "none: load with live=True"
            raise UserError(f"the strength of {name!r} cannot change while playing", fix=f"it can for: {known}")
        self.schedules[name] = StrengthSchedule.constant(strength)

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int] | None = None,
        continue_from: Int[np.ndarray, "K P"] | None = None,
        also: Sequence[RowConditions] | None = None,
    ) -> list[Take]:
        """Play all prompts at once, each for `settings.duration_sec`; the n-th has seed `settings.seed` + n.

        `continue_from` comes first and is part of what comes back. `also` holds each piece's other conditions by kind,
        values [n, width] for the whole piece, what is continued included.

        Raises:
            UserError: the model's output is not a number; see `Tape.check`. Memory has no room for a single piece.
        """
        if self.codec is None:
            raise ValueError("this sampler was made without a codec: use `codes`")
        played = self.codes(prompts, seeds=seeds, continue_from=continue_from, also=also)
        return [Take(self.codec.decode(codes), codes) for codes in played]

    def codes(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int] | None = None,
        continue_from: Int[np.ndarray, "K P"] | None = None,
        n_frames: int | None = None,
        also: Sequence[RowConditions] | None = None,
    ) -> list[Int[np.ndarray, "K _"]]:
        """As `sample`, without decoding: codec tokens. `n_frames` of new music replaces `duration_sec`.

        As many pieces at once as memory has room for: a piece is the same in any company.

        Raises:
            DeviceTooSmallError: there is no room for a single piece.
        """
        seeds = self._seeds(prompts, seeds)
        n_known = 0 if continue_from is None else continue_from.shape[1]
        window = min(self._total_frames(n_known, n_frames), self._plan().window)
        row_bytes = self.engine.row_bytes(window, passes=sampling_of(self.settings).passes)
        room = [how_many_fit(row_bytes, self.engine.device), self.most_at_once]
        size = min([len(seeds), *(known for known in room if known is not None)])

        def play(numbers: Sequence[int]) -> list[Int[np.ndarray, "K _"]]:
            some = [prompts[number] for number in numbers], [seeds[number] for number in numbers]
            more = None if also is None else [also[number] for number in numbers]
            return self._play(*some, continue_from, n_frames, more)

        if also is not None and len(also) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(also)} sets of conditions")
        pieces, found = range(len(prompts)), []
        while len(found) < len(pieces):
            played, most = in_halves(play, pieces[len(found) : len(found) + size])
            found += played
            size = most if most < len(played) else size
        self.most_at_once = size if size < len(pieces) else self.most_at_once
        return found

    def _play(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        continue_from: Int[np.ndarray, "K P"] | None,
        n_frames: int | None,
        also: Sequence[RowConditions] | None,
    ) -> list[Int[np.ndarray, "K _"]]:
        """All of these at once."""
        code_dtype = torch.int16 if self.engine.spec.card < 2**15 else torch.int32
        with self._guard():
            generation = self._generation(prompts, seeds, continue_from, n_frames, also)
            while not generation.done:
                generation.advance(generation.plan.window)
            return [codes.to("cpu", code_dtype).numpy() for codes in generation.codes()]

    @contextmanager
    def stream(
        self,
        prompt: Prompt,
        *,
        seed: int | None = None,
        continue_from: Int[np.ndarray, "K P"] | None = None,
        endless: bool = False,
        also: RowConditions | None = None,
    ) -> Iterator[AudioStream]:
        """One piece while it is generated: iterate over it for chunks [C, n]; change its settings in between.

        `endless`: it goes on for as long as it is asked, in constant memory, whatever `duration_sec` says.
        """
        if self.codec is None:
            raise ValueError("this sampler was made without a codec: it cannot stream audio")
        with self._guard():
            seeds = None if seed is None else [seed]
            n_frames = ENDLESS if endless else None
            with one_piece():
                generation = self._generation([prompt], seeds, continue_from, n_frames, [also or {}])
            yield AudioStream(generation, self.codec, self.schedules_of)

    def schedules_of(self, prompts: Sequence[Prompt]) -> list[PromptSchedule[Tensor] | PromptMix[Tensor]]:
        """Prompts with their words turned into text states."""
        given = [one if isinstance(one, PromptSchedule | PromptMix) else PromptSchedule.of(one) for one in prompts]
        words = list(dict.fromkeys(text for one in given for text in one.texts if isinstance(text, str)))
        states = dict(zip(words, self.encode(words), strict=True)) if words else {}
        return [one.read_as(lambda text: states[text] if isinstance(text, str) else text) for one in given]

    def _generation(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int] | None,
        continue_from: Int[np.ndarray, "K P"] | None,
        n_frames: int | None,
        also: Sequence[RowConditions] | None,
    ) -> Generation:
        settings = self.settings
        also = [{**self.conditions, **more} for more in (also or [{}] * len(prompts))]
        known = None if continue_from is None else torch.from_numpy(continue_from.astype(np.int64))
        total = self._total_frames(0 if known is None else known.shape[1], n_frames)
        seeds = self._seeds(prompts, seeds)
        schedules = self.schedules_of(prompts)
        rows = zip(schedules, seeds, also, strict=True)
        requests = [Request(one, total, seed, known, more) for one, seed, more in rows]
        return Generation(self.engine, requests, sampling_of(settings), self._plan(), self._direct, self._mix)

    def _total_frames(self, n_known: int, n_frames: int | None) -> int:
        return min(n_known + (n_frames or max(1, round(self.settings.duration_sec * self.frame_rate))), ENDLESS)

    def _seeds(self, prompts: Sequence[Prompt], seeds: Sequence[int] | None) -> Sequence[int]:
        if seeds is None:
            return [self.settings.seed + number for number in range(len(prompts))]
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
        return seeds

    def _plan(self) -> WindowPlan:
        settings = self.settings
        window = round(settings.window_sec * self.frame_rate)
        overlap = round(settings.overlap_sec * self.frame_rate)
        pattern = self.engine.spec.pattern
        if pattern is not None and pattern.span_frames:
            window, overlap = min(window, pattern.span_frames), min(overlap, pattern.span_frames // 2)
        return WindowPlan(max(window, 2), min(max(overlap, 1), max(window, 2) - 1), self.frame_rate)

    def _direct(self, second: float) -> bool:
        """Set the adapters to their strengths at this moment."""
        now = {name: schedule.at(second) for name, schedule in self.schedules.items()}
        for name in self.added.keys() & now.keys():
            self.added[name].set_strength(now[name])
        return self.engine.strengths.set(now)


def sampling_of(settings: SampleSettings) -> Sampling:
    """The part of the settings that decides how tokens are drawn."""
    each = settings.per_codebook
    return Sampling(
        settings.guidance,
        each.temperature or settings.temperature,
        each.top_k or settings.top_k,
        each.top_p or settings.top_p,
        settings.context_guidance,
    )


def _no_words(prompts: Sequence[str]) -> list[Tensor]:
    raise ValueError(f"this sampler has no text encoder: give text states, not {prompts[0]!r}")
