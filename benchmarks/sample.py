"""Decoding speed of the engine against transformers' `generate`, side by side, on true sizes with random weights.

    python -m benchmarks.sample                          small on this CPU: some ten minutes of computing
    python -m benchmarks.sample --sizes small medium large --device cuda
    python -m benchmarks.sample --contexts 750 --batches 1 --json out.json

Text encoder and codec are left out on both sides; guidance 3, top-k 250. A measurement is a few steps at a context of
1, 750 or 1500 frames. transformers' steps are taken inside a running `generate`, whose cache is lengthened to the
context with random keys and values, so that its own loop, sampling and cache handling count; ours likewise. "30 s" is
the mean step over a piece of 30 s by the trapezoid through the three contexts. What fp16 and int8 add to the
cross-entropy is printed as well: for random weights this shows rounding, not music.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EncodecConfig,
    EncodecModel,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.models.encodec.modeling_encodec import EncodecDecoderOutput

from adapters.conditions import Conditions
from adapters.decode.arithmetic import choose
from adapters.decode.engine import Blend, Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.projections import has_fbgemm
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.tape import Layout, Tape
from adapters.family.lm import LM
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.family.musicgen.family import FAMILY
from adapters.family.musicgen.format import spec_of_sizes
from adapters.family.musicgen.kv_cache import KeyValueCache
from benchmarks.measure import (
    AGAIN,
    Measured,
    clock,
    compare,
    one_thread,
    print_environment,
    read_bandwidth,
    write,
)
from configs.errors import UserError

SIZES = {
    "starter": (256, 5, 8, 1024),
    "small": (1024, 24, 16, 4096),
    "medium": (1536, 48, 24, 6144),
    "large": (2048, 48, 32, 8192),
}
"""Width, layers, heads, inner width. The starter is the larger of its two recipes (starter/recipe/sizes.py)."""
TEXT_TOKENS, TEXT_WIDTH = 12, 768
GUIDANCE, TOP_K, WINDOW_FRAMES = 3.0, 250, 1500
FP32_OF_HALVES = "ours fp32, fp16 base"
"""fp32 where every weight is an fp16 number, as in a base that was published in half precision."""


def random_lm(size: str, device: torch.device, dtype: torch.dtype) -> LM:
    """A decoder of true size whose weights mean nothing."""
    with torch.device("meta"):
        lm = FAMILY.from_spec(spec_of_sizes(*SIZES[size], text_width=TEXT_WIDTH))
    lm.to_empty(device=device).to(dtype)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02, generator=generator)
            else:
                parameter.fill_(float(name.endswith("norm.weight")))
    FAMILY.complete(lm, device, dtype)
    return lm


class Ours:
    """A window of the engine that can be put at any context."""

    def __init__(self, engine: MusicgenEngine, n_pieces: int, caches: dict[torch.dtype, KeyValueCache]) -> None:
        spec, dtype = engine.spec, engine.weights.cache_dtype
        self.engine = engine
        knobs = Knobs(Sampling(GUIDANCE, 1.0, TOP_K), spec.n_codebooks, spec.card, engine.device)
        layout = Layout([torch.zeros(4, 0, dtype=torch.long)] * n_pieces, [WINDOW_FRAMES] * n_pieces, [0] * n_pieces)
        with torch.no_grad():
            self.tape = Tape(engine.pattern, spec.special, knobs, range(n_pieces), layout, engine.device)
            self.window = engine.start(self.tape, knobs)
            self.window.follow(Blend([engine.encode(text_of(n_pieces))]))
        if dtype not in caches:
            self.window.cache.keys.normal_()
            self.window.cache.values.normal_()
        self.window.cache = caches.setdefault(dtype, self.window.cache)

    def steps(self, context: int, n: int) -> Measured:
        """So many steps from this context on."""
        device = self.engine.device.type
        with self.engine.quietly():
            self.tape.tokens.clamp_(min=0)
            self.window.at = max(1, min(context, self.tape.n_columns - 2 - n))
            self.window.advance(self.window.at + 1)
            begun = clock(device)
            self.window.advance(self.window.at + n)
            return Measured(clock(device) - begun)


def text_of(n_pieces: int) -> Conditions:
    """The same random text for every piece."""
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    return Conditions.of_text(text.expand(n_pieces, -1, -1), torch.ones(n_pieces, TEXT_TOKENS, dtype=torch.bool))


class Theirs:
    """transformers' `generate` on the whole model, stopped after a few steps at a context."""

    def __init__(self, lm: LM, n_pieces: int) -> None:
        whole: Any = lm
        text: Any = T5EncoderModel(T5Config(d_model=TEXT_WIDTH, num_layers=1, num_heads=1, d_kv=8, d_ff=8))
        model: Any = MusicgenForConditionalGeneration(
            text_encoder=text.to(lm.device, lm.dtype),
            audio_encoder=EncodecModel(EncodecConfig()),
            decoder=whole.decoder,
        )
        model.enc_to_dec_proj = whole.enc_to_dec_proj
        model.decoder.set_attn_implementation("sdpa")  # its fastest on these machines, and its default for checkpoints
        model.audio_encoder.decode = lambda *args, **options: EncodecDecoderOutput(torch.zeros(n_pieces, 1, 1))
        self.model: Any = model.eval()
        self.n_pieces = n_pieces
        special = lm.card
        self.options: dict[str, Any] = {
            "pad_token_id": special,
            "bos_token_id": special,
            "decoder_start_token_id": special,
        }

    def steps(self, context: int, n: int) -> Measured:
        """So many steps from this context on, as they pass inside `generate`."""
        device = self.model.decoder.device
        steps = _StepClock(device.type, _Cache(self.model.decoder, context))
        tokens = torch.ones(self.n_pieces, TEXT_TOKENS, dtype=torch.long, device=device)
        with steps.cache:
            self.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=True,
                top_k=TOP_K,
                guidance_scale=GUIDANCE,
                max_length=max(n + 4, 8),
                use_cache=True,
                logits_processor=LogitsProcessorList([steps]),
                **self.options,
            )
        return Measured(steps.times[2 + n] - steps.times[2])


class _Cache:
    """Lengthens the cache of a running `generate` to a context, once, behind its first step."""

    def __init__(self, decoder: MusicgenForCausalLM, context: int) -> None:
        self.decoder, self.context, self.held = decoder, context, None

    def __enter__(self) -> None:
        plain: Any = self.decoder.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            out = plain(*args, **kwargs)
            self.held = out.past_key_values
            return out

        self.decoder.__dict__["forward"] = forward

    def __exit__(self, *_: object) -> None:
        del self.decoder.__dict__["forward"]

    def lengthen(self) -> None:
        held: Any = self.held
        for layer in held.self_attention_cache.layers:
            missing = max(0, self.context - layer.keys.shape[2])
            shape = (*layer.keys.shape[:2], missing, layer.keys.shape[3])
            layer.keys = torch.cat([layer.keys.new_empty(shape).normal_(), layer.keys], dim=2)
            layer.values = torch.cat([layer.values.new_empty(shape).normal_(), layer.values], dim=2)


class _StepClock(LogitsProcessor):
    """Notes the time once per step, between the model and the sampling, and lengthens the cache at the first."""

    def __init__(self, device: str, cache: _Cache) -> None:
        self.device, self.cache, self.times = device, cache, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.times.append(clock(self.device))
        if len(self.times) == 1:
            self.cache.lengthen()
        return scores


def cases_of(size: str, device: torch.device, precisions: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """By name: who plays, and with which weights or model. transformers has the weights that ours is packed from."""
    lm = random_lm(size, device, torch.float32)
    found: dict[str, tuple[str, Any]] = {}
    for precision in precisions:
        arithmetic = choose(precision, device)  # pyright: ignore[reportArgumentType]
        found[f"ours {precision}"] = ("ours", FAMILY.pack(lm, Packing(arithmetic.kind, device, arithmetic.dtype)))
    if device.type == "cpu":
        if "fp32" in precisions and has_fbgemm():
            _round_to_half(lm)
            found[FP32_OF_HALVES] = ("ours", FAMILY.pack(lm, Packing("fp32", device, torch.float32)))
        found["transformers fp32"] = ("theirs", lm)
        half = random_lm(size, device, torch.bfloat16)
        found["transformers bf16"] = ("theirs", half)
        return found
    dtype = choose("auto", device).dtype
    found[f"transformers {str(dtype).removeprefix('torch.')}"] = ("theirs", lm.to(dtype))
    return found


def _round_to_half(lm: LM) -> None:
    """The same weights as a base has that was published in half precision: fp16 numbers, held in fp32."""
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.copy_(parameter.half())


def measure(size: str, n_pieces: int, contexts: Sequence[int], sides: dict[str, tuple[str, Any]], args: Any) -> dict:
    """Steps at every context, for one size and batch; milliseconds per step."""
    caches: dict[torch.dtype, KeyValueCache] = {}  # all our sides take turns in one cache: eight pieces need 5 GB
    players: dict[str, Callable[[int, int], Measured]] = {
        name: (Ours(weights, n_pieces, caches) if kind == "ours" else Theirs(weights, n_pieces)).steps
        for name, (kind, weights) in sides.items()
    }
    limit = read_bandwidth(args.device)
    found: dict[str, Any] = {"size": size, "batch": n_pieces, "read_gb_per_sec": limit / 1e9, "contexts": {}}
    for context in contexts:
        cases = {name: partial(steps, context, args.steps) for name, steps in players.items()}
        compared = compare(cases, rounds=args.rounds, device=args.device)
        print(f"\n{size}, batch {n_pieces}, context {context}; the A/A pair comes apart by {compared.noise:.3f}")
        found["contexts"][context] = {}
        for name, timing in compared.timings.items():
            rounds = [seconds / args.steps * 1e3 for seconds in timing.seconds]
            found["contexts"][context][name] = rounds
            words = [f"  {name:<22}{median(rounds):8.2f} ms ({min(rounds):.2f} to {max(rounds):.2f})"]
            kind, weights = sides[name.removesuffix(AGAIN)]
            if kind == "ours":
                must_read = _bytes(weights, n_pieces, context)
                share = must_read / limit * 1e3 / median(rounds)
                words.append(f"{must_read / 2**20:.0f} MiB at {share:.0%} of {limit / 1e9:.0f} GB/s")
                rivals = [rival for rival in cases if sides[rival][0] == "theirs"]
                words += [f"{compared.ratio(rival, name):.2f} x {rival}" for rival in rivals]
            print("   ".join(words), flush=True)
    return found


def _bytes(engine: MusicgenEngine, n_pieces: int, context: int) -> float:
    """What one step must read: the weights once, and the keys and values of every row."""
    per_place = 2 * engine.spec.layers * engine.spec.hidden * engine.weights.cache_dtype.itemsize
    return engine.bytes_per_step + 2 * n_pieces * context * per_place


def over_30_sec(found: dict) -> None:
    """Mean step and real-time factor over a piece of 30 s."""
    if set(found["contexts"]) != {1, 750, 1500}:
        return
    means = {}
    for name in found["contexts"][1]:
        first, middle, last = (median(found["contexts"][c][name]) for c in (1, 750, 1500))
        means[name] = (first + 2 * middle + last) / 4
    found["mean_ms_over_30_sec"] = means
    print(f"\n{found['size']}, batch {found['batch']}, mean over 30 s:")
    for name, mean in means.items():
        print(f"  {name:<24}{mean:7.2f} ms a step   {20 / mean * found['batch']:.2f} x real time")


def together(results: Sequence[dict]) -> None:
    """What several pieces at once cost against one, in the mean over 30 s."""
    means = {found["batch"]: found.get("mean_ms_over_30_sec", {}) for found in results}
    for n_pieces in sorted(means.keys() - {1} if 1 in means else ()):
        shares = [f"{name} {mean / means[1][name]:.2f}" for name, mean in means[n_pieces].items() if name in means[1]]
        if not shares:
            continue  # the means need all three contexts
        print(f"{n_pieces} pieces together cost, in steps of one: {', '.join(shares)}")


def quality(sides: dict[str, tuple[str, Any]]) -> dict[str, float]:
    """What each arithmetic adds to the cross-entropy of tokens that the first one draws."""
    ours = {name: weights for name, (kind, weights) in sides.items() if kind == "ours" and name != FP32_OF_HALVES}
    exact = next(iter(ours.values()))
    text = torch.randn(TEXT_TOKENS, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    plan = WindowPlan(WINDOW_FRAMES, WINDOW_FRAMES // 2, exact.spec.frame_rate)
    drawn = Generation(exact, [Request(PromptSchedule.of(text), 40)], Sampling(GUIDANCE, 1.0, TOP_K), plan)
    drawn.advance(40)
    losses = {name: -engine.log_likelihoods(drawn.codes()[0], text_of(1)) for name, engine in ours.items()}
    first = next(iter(losses.values()))
    print(f"\nadded to the cross-entropy of {first.numel()} tokens (mean; largest of any token):")
    for name, loss in losses.items():
        print(f"  {name:<22}{float((loss - first).mean()):+.5f}; {float((loss - first).abs().max()):.4f}")
    return {name: float((loss - first).mean()) for name, loss in losses.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; with --json, write as well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 750, 1500])
    parser.add_argument("--precisions", nargs="+", default=None, help="of ours; default: all that this machine has")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    one_thread()
    device = torch.device(args.device)
    print_environment()
    results = []
    for size in args.sizes:
        sides = cases_of(size, device, args.precisions or _precisions(device))
        quality(sides)
        for n_pieces in args.batches:
            found = measure(size, n_pieces, args.contexts, sides, args)
            over_30_sec(found)
            results.append(found)
        together([found for found in results if found["size"] == size])
        print(f"\nmost memory held by now: {_peak_mib(device):.0f} MiB (all sides together)")
    if args.json:
        write(args.json, "sample", {"results": results})


def _precisions(device: torch.device) -> list[str]:
    """All arithmetic that this machine has, the exactest first."""
    if device.type == "cuda":
        return [choose("auto", device).label]
    found = []
    for precision in ("fp32", "fp16", "bf16", "int8"):
        try:
            found.append(choose(precision, device).label)
        except UserError:
            continue
    return found


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
