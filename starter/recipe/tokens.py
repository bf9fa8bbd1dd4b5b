"""A collection's codec tokens, kept on disk: codes.npy [K, M] as int16 and pieces.json (place and facts of each).

python -m starter.recipe.tokens /tmp/starter/audio /tmp/starter/codec /tmp/starter/tokens --size cpu
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int16

from finetune.codec_train.export import to_encodec
from finetune.codec_train.model import CodecModel
from starter.recipe.captions import with_strange_words
from starter.recipe.collection import Collection
from starter.recipe.compose import RING_OUT_SEC
from starter.recipe.sizes import CODEC_SIZES, FRAME_RATE_HZ
from starter.recipe.stage import load_module, pick_device

BEGINNINGS = 1 / 3
RING_OUT_FRAMES = round(RING_OUT_SEC * FRAME_RATE_HZ)


class Tokens:
    """Reads what `write_tokens` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codes: Int16[np.ndarray, "K M"] = np.load(folder / "codes.npy")
        self.facts: list[dict[str, Any]] = json.loads((folder / "pieces.json").read_text())
        self.chances = _chances(self.facts)

    def __len__(self) -> int:
        return len(self.facts)

    def piece(self, index: int) -> Int16[np.ndarray, "K T"]:
        """All codes of a piece."""
        first = self.facts[index]["first_frame"]
        return self.codes[:, first : first + self.facts[index]["n_frames"]]

    def batch(
        self, step: int, *, n: int, n_frames: int, dropout: float, seed: int = 0
    ) -> tuple[Int[torch.Tensor, "B K T"], list[str], list[dict[str, Any]]]:
        """Crops of a step, their captions (a share is empty), and their facts; the same for a step.

        Every third crop is the beginning of its piece, because that is where generated music begins. What rings out is
        left out: no crop says how far its piece has come, so an end would be expected anywhere, and then silence.
        """
        rng = np.random.default_rng((seed, step))
        crops, captions, facts = [], [], []
        for index in rng.choice(len(self), size=n, p=self.chances):
            codes = self.piece(int(index))
            last = max(0, codes.shape[1] - RING_OUT_FRAMES - n_frames)
            start = int(rng.integers(last + 1) * (rng.random() >= BEGINNINGS))
            crops.append(torch.from_numpy(codes[:, start : start + n_frames].astype(np.int64)))
            wording = self._wording(int(index), rng)
            captions.append("" if rng.random() < dropout else wording)
            facts.append(self.facts[int(index)] | {"start_frame": start})
        return torch.stack(crops), captions, facts

    def _wording(self, index: int, rng: np.random.Generator) -> str:
        wordings = self.facts[index]["captions"]
        return with_strange_words(wordings[rng.integers(len(wordings))], rng)


def _chances(facts: list[dict[str, Any]]) -> Float[np.ndarray, " N"]:
    """How often each piece is drawn: within a manner, pieces with and without drums are heard equally often.

    Most pieces of a manner that can have drums have them: a model that hears those hears drums in the word "rock".
    """
    of_manner = Counter(fact["manner"] for fact in facts)
    alike = Counter((fact["manner"], fact["drums"]) for fact in facts)
    kinds = Counter(manner for manner, _ in alike)
    chances = [of_manner[f["manner"]] / kinds[f["manner"]] / alike[f["manner"], f["drums"]] for f in facts]
    return np.array(chances) / len(facts)


@torch.inference_mode()
def write_tokens(collection: Collection, model: CodecModel, folder: Path, n_pieces: int) -> None:
    """Encode the first pieces, each whole, with the codec as it will be exported in half precision."""
    device = pick_device()
    codec: Any = to_encodec(model).half().float()
    codec.to(device)
    folder.mkdir(parents=True, exist_ok=True)
    every, facts, first = [], [], 0
    for index in range(min(n_pieces, len(collection))):
        audio = torch.from_numpy(collection.audio(index).astype(np.float32) / 32768).to(device)
        codes = codec.encode(audio[None, None]).audio_codes[0, 0].cpu().numpy().astype(np.int16)  # [K, T]
        facts.append(collection.facts[index] | {"first_frame": first, "n_frames": codes.shape[1]})
        first += codes.shape[1]
        every.append(codes)
    np.save(folder / "codes.npy", np.concatenate(every, axis=1))
    (folder / "pieces.json").write_text(json.dumps(facts))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(CODEC_SIZES), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pieces", type=int, default=1_000_000, help="at most this many (default: all)")
    args = parser.parse_args()
    model = load_module(args.codec, "model", CodecModel(CODEC_SIZES[args.size]))
    assert isinstance(model, CodecModel)
    write_tokens(Collection(args.audio), model, args.folder, args.pieces)


if __name__ == "__main__":
    main()
