"""The codec's figures on held-out pieces: what each codebook more keeps, and what the whole keeps of the music.

python -m starter.recipe.evaluate_codec /tmp/starter/held_out --pieces 40 --decoder my-decoder/decoder.safetensors
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data_prep.base_files import resolve_base
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.codec.tuned_decoder import use_decoder
from data_prep.codec_measures.code_use import CodeUse
from starter.recipe.collection import Collection
from starter.recipe.measures import chroma_agreement, mel_distance, onset_f1, si_sdr_db

Figures = dict[str, float | list[float]]


def float_audio(collection: Collection, index: int) -> np.ndarray:
    """A piece in -1 … 1."""
    return collection.audio(index).astype(np.float32) / 32768


def evaluate_codec(codec: Codec, held_out: Collection, n_pieces: int) -> Figures:
    """Means over the first pieces of a collection."""
    K, rate_hz = codec.n_codebooks, codec.sample_rate_hz
    mel, sdr, chroma, onsets, use = [], [], [], [], CodeUse(K, codec.card)
    for index in range(min(n_pieces, len(held_out))):
        audio = float_audio(held_out, index)
        codes = codec.encode([torch.from_numpy(audio)[None]])[0]
        use.add(codes)
        decoded = [codec.decode(codes[:count])[0].numpy()[: len(audio)] for count in range(1, K + 1)]
        audio = audio[: len(decoded[0])]
        mel.append([mel_distance(one, audio, rate_hz) for one in decoded])
        sdr.append([si_sdr_db(one, audio) for one in decoded])
        chroma.append(chroma_agreement(decoded[-1], audio, rate_hz))
        onsets.append(onset_f1(decoded[-1], audio, rate_hz))
    return {
        "pieces": len(onsets),
        "mel_distance": _mean(mel),
        "si_sdr_db": _mean(sdr),
        "chroma_agreement": float(np.mean(chroma)),
        "onset_f1": float(np.mean(onsets)),
        "share_of_codes_used": use.shares_in_use(),
        "perplexity": use.perplexity(),
        "bitrate_efficiency": [use.bitrate_efficiency(count) for count in range(1, K + 1)],
    }


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(value) for value in np.mean(rows, axis=0)]


def main() -> None:
    """The command: a base's codec as it is, and with tuned decoders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--pieces", type=int, default=40)
    parser.add_argument("--decoder", type=Path, action="append", default=[])
    args = parser.parse_args()
    pieces = Collection(args.held_out)
    for decoder in (None, *args.decoder):
        codec = load_base_codec(resolve_base(args.base))
        if decoder is not None:
            use_decoder(codec, decoder)
        figures = evaluate_codec(codec, pieces, args.pieces)
        print(decoder or "as it is", {name: figures[name] for name in ("mel_distance", "chroma_agreement", "onset_f1")})


if __name__ == "__main__":
    main()
