"""Which settings fit under a cap, and which of those is the fastest.

The total batch stays what was asked for: micro-batch times accumulation. For every way to hold the base and every
micro-batch, as little is recomputed as the cap allows, since that is what costs time: some layers whole, of others only
norms and activation; then the fastest wins. An
8-bit or 4-bit base changes the model a little, so it must earn its place: it is chosen only where no unquantised base
fits, or where it is predicted to be faster by `LOSSY_GAIN`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from adapters.family.memory import Optimizer, StepPlan, memory_of
from configs.errors import UserError
from configs.precisions import BaseWeights
from finetune.memory.cost import Machine, audio_sec_per_sec
from finetune.memory.predict import CONTEXT_BYTES, GIB, Predicted, predict

LOSSY_GAIN = 1.25
SMALLER_OPTIMIZERS: dict[Optimizer, tuple[Optimizer, ...]] = {
    "adamw": ("adamw8bit", "paged_adamw8bit"),
    "adamw8bit": ("paged_adamw8bit",),
}
"""What may replace an optimizer when nothing fits otherwise."""


@dataclass(frozen=True)
class Option:
    """A plan with its accumulation, and what is predicted of it."""

    plan: StepPlan
    accumulation: int
    memory: Predicted
    speed: float
    fits: bool

    @property
    def lossy(self) -> bool:
        """Whether the base is rounded to 8 or 4 bits."""
        return self.plan.weights in ("int8", "nf4")


@dataclass(frozen=True)
class Cap:
    """What the run may take. On a GPU `total` is the card's share of the process, its CUDA context included."""

    total: int
    on_gpu: bool = True

    @property
    def tensors(self) -> int:
        """What is left for PyTorch's allocator."""
        return self.total - CONTEXT_BYTES if self.on_gpu else self.total

    def holds(self, memory: Predicted) -> bool:
        """Whether a prediction stays below."""
        return (memory.reserved if self.on_gpu else memory.peak) <= self.tensors


def options(
    plan: StepPlan, total_batch: int, cap: Cap, weights: Iterable[BaseWeights], machine: Machine | None = None
) -> list[Option]:
    """Every combination of base, micro-batch and, where nothing else fits, optimizer; the fastest that fit first.

    The plan's own batch size and recomputed layers are replaced; its arithmetic, rank and lengths stay.
    """
    kinds = list(weights)
    found = _table(plan, total_batch, cap, kinds, machine)
    for optimizer in SMALLER_OPTIMIZERS.get(plan.optimizer, ()):
        if any(option.fits for option in found) or (optimizer.startswith("paged") and not cap.on_gpu):
            break
        found += _table(replace(plan, optimizer=optimizer), total_batch, cap, kinds, machine)
    return sorted(found, key=lambda option: (not option.fits, -option.speed if option.fits else option.memory.peak))


def choose(found: list[Option], cap: Cap) -> Option:
    """The fastest option that fits, an unquantised base preferred as the module says.

    Raises:
        UserError: nothing fits; says what the smallest needs.
    """
    fitting = [option for option in found if option.fits]
    if not fitting:
        raise _nothing_fits(min(found, key=lambda option: option.memory.peak), cap)
    best = fitting[0]
    exact = next((option for option in fitting if not option.lossy), None)
    return exact if exact is not None and best.speed < LOSSY_GAIN * exact.speed else best


def recomputed_words(plan: StepPlan) -> str:
    """How many of the layers are recomputed, for people."""
    in_part = f" and {plan.partly} in part" if plan.partly else ""
    return f"{plan.checkpointed}{in_part} of {plan.spec.layers}"


def divisors(number: int) -> list[int]:
    """Ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _table(plan: StepPlan, total: int, cap: Cap, kinds: list[BaseWeights], machine: Machine | None) -> list[Option]:
    plans = [replace(plan, weights=kind) for kind in kinds]
    return [_option(each, size, total, cap, machine) for each in plans for size in divisors(total)]


def _option(plan: StepPlan, size: int, total: int, cap: Cap, machine: Machine | None) -> Option:
    """With as little recomputed as fits, in the way that is fastest; with all layers when nothing does."""
    accumulation = total // size
    fitting = list(_least_recomputed(replace(plan, batch_size=size), cap))
    tried = fitting or [replace(plan, batch_size=size, checkpointed=plan.spec.layers, partly=0)]
    speeds = [audio_sec_per_sec(trial, accumulation, machine) for trial in tried]
    best = speeds.index(max(speeds))
    return Option(tried[best], accumulation, predict(tried[best]), speeds[best], bool(fitting))


def _least_recomputed(plan: StepPlan, cap: Cap) -> Iterator[StepPlan]:
    """For each number of layers that are recomputed whole, as few in part as fit; up to where none in part need be."""
    layers = plan.spec.layers
    in_part = memory_of(plan.spec).cheap_bytes(plan)[0] > 0
    for whole in range(layers + 1):
        most = (layers - whole) * in_part
        few = bisect_left(
            range(most + 1), True, key=lambda n: cap.holds(predict(replace(plan, checkpointed=whole, partly=n)))
        )
        if few <= most:
            yield replace(plan, checkpointed=whole, partly=few)
        if few == 0:
            return


def _nothing_fits(smallest: Option, cap: Cap) -> UserError:
    memory, plan = smallest.memory, smallest.plan
    need = memory.of_the_card if cap.on_gpu else memory.peak
    return UserError(
        f"Nothing fits into {cap.total / GIB:.1f} GiB: the smallest way to train this needs {need / GIB:.1f} GiB.",
        where=f"{plan.weights} base, layers recomputed, one clip of {plan.frames / plan.spec.frame_rate:g} s at once",
        fix="Use a smaller base, shorter clips (`--max_clip_sec 10`), a lower `--lora.rank`, or give more memory.",
    )
