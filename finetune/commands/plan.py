"""`woodshed plan DATA`: which settings fit into a card's memory, and how fast each would be. Loads no base."""

import argparse
import functools
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.train import TrainSettings
    from data_prep.lm_spec import LMSpec
    from data_prep.prepared import PreparedDataset
    from finetune.memory.auto import Arithmetic, Fitted
    from finetune.memory.fit import Cap, Option

EXAMPLES = """
woodshed plan data/mine --memory 6gb                                    # for the base the dataset was made for
woodshed plan data/mine --base facebook/musicgen-large --memory 12gb
woodshed plan data/mine --memory auto                                   # what is free on this machine's GPU now
woodshed plan data/mine --memory 8gb --batch_size 8 --accumulation 2 --lora.rank 32 --base_weights bf16
woodshed plan data/mine --memory 8gb --device cpu                       # for training on the processor
"""
SECTION = "train"
ALIASES = {"rank": "lora.rank"}


def arguments(parser: Any) -> None:
    """Positionals of its own."""
    parser.add_argument("data", type=Path, help="A folder that `woodshed prep` made.")


def run(args: argparse.Namespace, settings: "TrainSettings") -> int:
    """Print the table and the command that uses it."""
    from configs.errors import UserError
    from data_prep.prepared import PreparedDataset
    from data_prep.progress import quiet_libraries
    from finetune.added_infos import added_infos
    from finetune.batches import clips_of
    from finetune.dataset_fit import with_base
    from finetune.memory.auto import cap_of, fit_settings, longest_frames
    from finetune.memory.host_cost import machine_here
    from finetune.moving import move_for_run
    from finetune.prior import with_prior

    memory = settings.memory
    if memory is None:
        raise UserError(
            "A plan needs to know how much memory there is.",
            where="memory",
            fix="Add --memory 8gb, say, or --memory auto for what is free on this machine.",
        )
    quiet_libraries()
    dataset = PreparedDataset(args.data)
    settings = with_base(settings, dataset)
    frames = [row.n_frames for row in dataset.clips("train")]
    device, arithmetic = machine_of(settings)
    cap = cap_of(memory, device)
    own = spec_of_base(settings)
    spec = move_for_run(own, dataset, settings).applied(own)
    longest = longest_frames(frames, settings, spec.frame_rate)
    decided = with_prior(settings, dataset, clips_of(dataset, "train"))
    machine, infos = machine_here(spec, host_device()), added_infos(dataset, settings, spec)
    fitted = fit_settings(decided, spec, longest, arithmetic, cap, machine, infos.values())
    show(args.data, dataset, fitted, settings, arithmetic)
    return 0


def machine_of(settings: "TrainSettings") -> "tuple[Any, Arithmetic]":
    """Device and arithmetic to plan for: a GPU with bf16 unless the settings say otherwise, here or not.

    `memory: auto` and `device: cpu` are about this machine.
    """
    if settings.device == "cpu" or settings.memory == "auto":
        from finetune.precision import settle

        precision = settle(settings)
        return precision.device, precision.arithmetic
    return "cuda", "bf16" if settings.precision == "auto" else settings.precision


def host_device() -> str:
    """Where the cost of asking for kernels is measured: on a GPU where there is one, whatever is planned for."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def spec_of_base(settings: "TrainSettings") -> "LMSpec":
    """The language model's description from its configuration alone; no weights are read or fetched.

    Raises:
        UserError: the base cannot be found.
    """
    from adapters.family.musicgen.format import spec_of_sizes
    from adapters.family.musicgen_melody.format import spec_of_sizes as melody_of_sizes
    from data_prep.base_files import resolve_base
    from data_prep.debug_base import MELODY_CONFIGS, T5_BASE, TRUE_CONFIGS
    from data_prep.families import formats
    from data_prep.typed_paths import is_folder

    base = settings.base
    assert base is not None
    if base in TRUE_CONFIGS and not is_folder(base):
        (hidden, layers, heads, ffn), channels = TRUE_CONFIGS[base]
        return spec_of_sizes(hidden, layers, heads, ffn, channels=channels, text_width=int(T5_BASE["d_model"]))
    if base in MELODY_CONFIGS and not is_folder(base):
        (hidden, layers, heads, ffn), channels = MELODY_CONFIGS[base]
        return melody_of_sizes(hidden, layers, heads, ffn, channels=channels, text_width=int(T5_BASE["d_model"]))
    known = next((spec for format in formats() if (spec := format.published(base)) is not None), None)
    return known or resolve_base(base, settings.revision).spec


def show(
    data: Path, dataset: "PreparedDataset", fitted: "Fitted", before: "TrainSettings", arithmetic: "Arithmetic"
) -> None:
    """The table, the choice marked, and what to type."""
    from rich.console import Console

    console = Console(highlight=False)
    where = "on a GPU" if fitted.cap.on_gpu else "on the processor"
    longest = fitted.option.plan.frames / fitted.option.plan.spec.frame_rate
    console.print(
        f"{before.base}, {len(dataset.clips('train'))} clips of up to {longest:g} s, {arithmetic} {where}, "
        f"{fitted.cap.total / 2**30:.1f} GiB",
        style="bold",
    )
    console.print(table_of(fitted))
    console.print("Predicted, not measured. `train` measures a step on the longest clips first and adjusts once.")
    if before.lora.dora or before.lora.dropout:
        console.print("DoRA and adapter dropout need more than is predicted here.")
    words = ["woodshed", "train", str(data), "runs/NAME", *flags_of(before, dataset)]
    console.print(f"next: {shlex.join(words)}", soft_wrap=True, markup=False)


def flags_of(settings: "TrainSettings", dataset: "PreparedDataset") -> list[str]:
    """Every setting that is not the default, as `train` takes it; no base where it is the dataset's own."""
    from configs.fields import default_of, leaves

    own, words = dataset.info["base"], []
    for name, _ in leaves(type(settings)):
        value = functools.reduce(getattr, name.split("."), settings)
        if value == default_of(type(settings), name) or (name in ("base", "revision") and settings.base == own["id"]):
            continue
        words += [f"--{name}", json.dumps(value) if isinstance(value, list | tuple | bool) else str(value)]
    return words


def table_of(fitted: "Fitted") -> Any:
    """One row per way to hold the base and to cut the total batch; the chosen one first."""
    from rich.table import Table

    table = Table("", "base", "layers recomputed", "micro-batch", "rank", "optimizer")
    for name in ("peak GiB", "speed"):
        table.add_column(name, justify="right")
    rows = [fitted.option, *(option for option in fitted.table if option is not fitted.option)]
    for option in rows:
        chosen = option is fitted.option
        style = "bold" if chosen else ("" if option.fits else "dim")
        sign = "→" if chosen else ("" if option.fits else "too large")
        table.add_row(sign, *cells_of(option, fitted.cap, fitted.option.speed), style=style)
    return table


def cells_of(option: "Option", cap: "Cap", fastest: float) -> list[str]:
    """Base, layers, batch, rank, optimizer, peak, and speed relative to the choice."""
    from finetune.memory.fit import recomputed_words

    plan, memory = option.plan, option.memory
    peak = memory.of_the_card if cap.on_gpu else memory.peak
    return [
        plan.weights,
        recomputed_words(plan),
        f"{plan.batch_size} x {option.accumulation}",
        str(plan.rank),
        plan.optimizer,
        f"{peak / 2**30:.2f}",
        f"{option.speed / fastest:.2f}",
    ]
