"""The codec's figures on held-out pieces: what each codebook more keeps, and what the whole keeps of the music."""

from collections.abc import Sequence

import numpy as np
import torch

from data_prep.codec.port import Codec
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
