"""The language model's figures on held-out pieces: cross-entropy of each codebook, next to n-grams'."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int16

from adapters.conditions import Conditions
from adapters.family.lm import LM
from data_prep.text_encoder import TextEncoder
from finetune.loss import codebook_counts, codebook_sums
from starter.recipe.baselines import NGrams
from starter.recipe.evaluate_codec import Figures

Codes = Sequence[Int16[np.ndarray, "K _"]]


@torch.inference_mode()
def evaluate_lm(
    lm: LM, encoder: TextEncoder, heard: Codes, held_out: Codes, captions: Sequence[str], n_frames: int
) -> Figures:
    """In nats per token. `heard` are training pieces, for the n-grams; `captions` are the held-out pieces' own."""
    grams = [NGrams([codes[k] for codes in heard], lm.card) for k in range(lm.n_codebooks)]
    crops = [codes[:, :n_frames] for codes in held_out]
    told, untold = (_mean_nats(lm, encoder, crops, captions, told=told) for told in (True, False))
    return {
        "pieces": len(crops),
        "cross_entropy": told,
        "cross_entropy_without_caption": untold,
        "unigram": [float(np.mean([gram.unigram_nats(c[k]) for c in crops])) for k, gram in enumerate(grams)],
        "bigram": [float(np.mean([gram.bigram_nats(c[k]) for c in crops])) for k, gram in enumerate(grams)],
    }


def _mean_nats(lm: LM, encoder: TextEncoder, crops: Codes, captions: Sequence[str], *, told: bool) -> list[float]:
    sums, counts = torch.zeros(lm.n_codebooks), torch.zeros(lm.n_codebooks)
    for codes, states in zip(crops, encoder.encode(captions), strict=True):
        batch = torch.from_numpy(codes.astype(np.int64))[None]  # [1, K, T]
        inputs, labels = lm.inputs_and_labels(batch, torch.tensor([batch.shape[2]]))
        conditions = Conditions.of_text(states[None], torch.full((1, len(states)), told))
        sums += codebook_sums(lm(inputs, conditions), labels)
        counts += codebook_counts(labels)
    return [float(value) for value in sums / counts]
