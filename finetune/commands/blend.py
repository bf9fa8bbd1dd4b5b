"""`woodshed blend`: several adapters into one, or one adapter at another rank."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from finetune.commands.merge import base_of, parse_spec

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from adapters.blend.truncate import Truncated
    from data_prep.base_files import BaseFiles

SECTION = None
ALIASES: dict[str, str] = {}
EXAMPLES = """
woodshed blend blues/@0.7 punk/@0.3 --out both/                          # exact: ranks add up
woodshed blend blues/@0.7 punk/@0.3 --method svd --rank 16 --out both/   # smaller; says what is lost
woodshed blend blues/ punk/ --method ties --rank 32 --out both/          # where they disagree, the stronger wins
woodshed blend blues/ vocals/@-0.5 --out without/                        # take something away
woodshed blend blues/ --method resize --rank 8 --out small/              # the same adapter at another rank
"""
METHODS = ("concatenate", "svd", "task-arithmetic", "ties", "dare", "dare-ties", "prune", "slerp", "resize")


def arguments(parser: Any) -> None:
    """Adapters, then how."""
    parser.add_argument(
        "adapters", nargs="+", metavar="ADAPTER[@WEIGHT]", help="An adapter's folder and its weight (1)."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="Folder of the new adapter.")
    parser.add_argument("--method", choices=METHODS, default="concatenate", help="How (concatenate: exact).")
    parser.add_argument("--rank", type=int, metavar="N", help="Rank of the result. The error this causes is printed.")
    parser.add_argument(
        "--energy", type=float, metavar="X", help="Instead: the lowest rank that keeps this share, 0.99."
    )
    parser.add_argument(
        "--density", type=float, metavar="X", help="Share of values kept by ties (0.2), dare, prune (0.5)."
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="What the result is multiplied by (1).")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="Of dare's draws and resize's new directions.")
    parser.add_argument("--name", metavar="NAME", help="What to call it (the folder's name).")
    parser.add_argument("--trigger", metavar="WORDS", help="Its trigger (the sources' triggers, joined).")
    parser.add_argument("--base", metavar="ID", help="The base, where one is needed: the id that the adapters name.")
    parser.add_argument("--overwrite", action="store_true", help="Replace an adapter in --out.")
    parser.add_argument("--force", action="store_true", help="Blend adapters of different bases of the same shape.")


def run(args: Namespace, settings: None) -> int:
    """Load, check, blend, write, and say what was lost."""
    if not abs(args.scale) <= 100:
        raise UserError(f"{args.scale} is no scale.", where="--scale", fix="Give a number up to 100, such as 0.8.")
    from adapters.adapter_folder import find_weights

    for folder, _ in map(parse_spec, args.adapters):
        find_weights(folder)  # before torch is imported
    from adapters import adapter_files
    from adapters.added_conditions import blend as conditions
    from adapters.blend.describe import base_needed, check_same_base, describe, source_of
    from adapters.moved import refuse_moved

    adapter_files.check_free(args.out, args.overwrite)
    wanted = [parse_spec(text) for text in args.adapters]
    adapters = [adapter_files.load(folder, force=args.force) for folder, _ in wanted]
    refuse_moved(adapters, "blended or resized, which would change half of it")
    weights = [weight for _, weight in wanted]
    needed = adapters[0].woodshed is None if args.method == "resize" else base_needed(adapters)
    files = base_of(adapters[0], args.base) if args.base or needed else None
    forced = check_same_base(adapters, files, force=args.force)
    modules = _resized(adapters, weights, args) if args.method == "resize" else _blended(adapters, weights, files, args)
    infos, added = conditions.blend_added(adapters, _plain_weights(args, weights))
    updates = {module: part.update for module, part in modules.items()}
    made = _made(args, [source_of(a, weight) for a, weight in zip(adapters, weights, strict=True)], modules)
    name = args.name or args.out.resolve().name
    told = describe(name, adapters, updates, made, files, trigger=args.trigger, conditions=infos)
    adapter_files.save(args.out, updates, told, overwrite=args.overwrite, added=added)
    show(args.out, modules, forced, conditions.told(infos, adapters, weights))
    return 0


def show(out: Path, modules: "dict[str, Truncated]", forced: list[str], followed: Sequence[str] = ()) -> None:
    """What --force let pass, where it is, its rank, what it follows, and how much of what was asked for it is."""
    from rich.console import Console

    from adapters.blend.truncate import total_error
    from finetune.terminal import forced_lines, harmless

    error = total_error(list(modules.values()))
    ranks = sorted({part.update.rank for part in modules.values()})
    rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    console = Console(highlight=False)
    for line in forced_lines(forced):
        console.print(line, soft_wrap=True)
    console.print(f"{harmless(str(out))}: {len(modules)} modules of rank {rank}", soft_wrap=True)
    for line in followed:
        console.print(harmless(line), soft_wrap=True)
    if error < 1e-5:
        console.print("exact: nothing is lost")
        return
    console.print(f"lost: {error:.2%} of ΔW's norm; kept: {1 - error**2:.2%} of its energy")
    for module in sorted(modules, key=lambda module: -modules[module].error)[:3]:
        console.print(f"  {modules[module].error:7.2%}  {harmless(module)}", soft_wrap=True)


def _plain_weights(args: Namespace, weights: list[float]) -> list[float]:
    """What the conditions are multiplied by: they are summed whole, whatever becomes of the ΔW."""
    total = sum(weights) if args.method == "slerp" else 1.0  # slerp goes from one to the other
    return [args.scale * weight / total for weight in weights]


def _blended(
    adapters: "list[Adapter]", weights: list[float], files: "BaseFiles | None", args: Namespace
) -> "dict[str, Truncated]":
    from adapters.blend.run import Recipe, blend
    from adapters.blend.sources import Source
    from adapters.family.port import family_of

    sources = [Source(a.label, a.updates, weight) for a, weight in zip(adapters, weights, strict=True)]
    recipe = Recipe(args.method, args.rank, args.energy, args.density, args.scale, args.seed)
    weight_of = None if files is None else (lambda module: family_of(files).stored(files)[f"{module}.weight"])
    return blend(sources, recipe, weight_of).modules


def _resized(adapters: "list[Adapter]", weights: list[float], args: Namespace) -> "dict[str, Truncated]":
    from adapters.resize import resize

    if len(adapters) != 1 or weights != [1.0] or args.scale != 1.0:
        raise UserError("resize takes one adapter as it is.", fix="Leave weights and --scale out, or use svd.")
    try:
        return resize(adapters[0].updates, rank=args.rank, energy=args.energy, seed=args.seed)
    except ValueError as error:
        raise UserError(f"resize needs {error}.", fix="e.g. --rank 8, or --energy 0.99") from error


def _made(args: Namespace, sources: list[Any], modules: "dict[str, Truncated]") -> Any:
    from adapters.blend.run import DENSITY
    from adapters.blend.truncate import total_error
    from adapters.metadata import MadeInfo

    chosen = {"rank": args.rank, "energy": args.energy, "scale": args.scale}
    if args.method in DENSITY:
        chosen["density"] = DENSITY[args.method] if args.density is None else args.density
    if args.method in ("dare", "dare-ties", "resize"):
        chosen["seed"] = args.seed
    error = total_error(list(modules.values()))
    return MadeInfo(method=args.method, settings=chosen, sources=sources, error=error)
