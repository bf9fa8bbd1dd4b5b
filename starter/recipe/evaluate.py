"""Measure a starter folder: every figure of its model card.

    python -m starter.recipe.evaluate starter/weights /tmp/starter/audio /tmp/starter/held_out --count 100
    python -m starter.recipe.evaluate starter/weights /tmp/starter/audio /tmp/starter/held_out --count 100 \\
        --island /tmp/starter/island --adapter woodshed-demo/run/adapter --trigger "in island style"

The first collection teaches the judges (n-grams, probe), the second is held out, `--island` holds the demo's style.
All figures go to --out as JSON. The full job is 100 generations a cell; fewer are for a quick look, and are said.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from adapters.family.load import load_lm
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.text_encoder import TextEncoder
from starter.recipe.collection import Collection
from starter.recipe.evaluate_codec import Figures, evaluate_codec, float_audio
from starter.recipe.evaluate_lm import evaluate_lm
from starter.recipe.evaluate_prompts import evaluate_prompts, tempo_of_real, train_judge, wishes


def evaluate(args: argparse.Namespace) -> dict[str, Figures]:
    """What the arguments ask for; each part is printed as soon as it is there."""
    files = resolve_base(str(args.base))
    codec = load_base_codec(files)
    heard, held_out = Collection(args.heard), Collection(args.held_out)
    if not codec.sample_rate_hz == heard.sample_rate_hz == held_out.sample_rate_hz:
        raise ValueError("the collections are rendered at another rate than the codec's")
    found: dict[str, Figures] = {}

    def note(name: str, figures: Figures) -> None:
        found[name] = figures
        print(name, json.dumps(figures), flush=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n")

    note("codec", evaluate_codec(codec, held_out, args.pieces))
    tokens = [
        [codec.encode([torch.from_numpy(float_audio(these, index))[None]])[0] for index in range(min(n, len(these)))]
        for these, n in ((heard, args.judge_pieces), (held_out, args.pieces))
    ]
    captions = [facts["captions"][0] for facts in held_out.facts[: len(tokens[1])]]
    lm, encoder = load_lm(files), TextEncoder.load(files)
    note("lm", evaluate_lm(lm, encoder, tokens[0], tokens[1], captions, round(args.play_sec * codec.frame_rate)))
    if args.count == 0:
        return found

    islands = [Collection(args.island)] if args.island else []
    judge = train_judge(codec, [heard, *islands], held_out, n=args.judge_pieces, play_sec=args.play_sec)
    note("probe_on_real", {**judge.held_out_accuracy, "tempo": tempo_of_real(held_out, args.pieces)})
    old = wishes(args.count)
    note("prompts", evaluate_prompts(files, judge, old))
    if args.adapter:
        note("prompts, adapter", evaluate_prompts(files, judge, old, adapter=args.adapter))
        unsaid = [replace(wish, open=True) for wish in old]
        for name, adapter, trigger in (
            ("open, trigger", None, args.trigger),
            ("open, adapter", args.adapter, ""),
            ("open, adapter, trigger", args.adapter, args.trigger),
        ):
            note(name, evaluate_prompts(files, judge, unsaid, adapter=adapter, trigger=trigger))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("heard", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--count", type=int, default=100, help="generations a cell; 0: codec and losses only")
    parser.add_argument("--pieces", type=int, default=50, help="held-out pieces that are measured")
    parser.add_argument("--judge-pieces", type=int, default=600, help="pieces that n-grams and probe learn from")
    parser.add_argument("--play-sec", type=float, default=10.0)
    parser.add_argument("--island", type=Path, help="a collection of the demo's style")
    parser.add_argument("--adapter", type=Path, help="an adapter for that style")
    parser.add_argument("--trigger", default="in island style")
    parser.add_argument("--out", type=Path, default=Path("figures.json"))
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
