"""Codecs for the tests of `woodshed codec train`: tiny ones of every kind."""

from typing import Any

import torch

from finetune.codec_train.model import CodecModel
from finetune.codec_train.settings import CodecSettings

TINY = CodecSettings(
    upsampling=(4, 4), filters=2, width=12, codebook_dim=12, card=16, batch_size=2, crop_sec=0.1, steps=6,
    quantize_from=2,
)  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "learnt": {"ema": False},
    "factorised": {"codebook_dim": 6},
    "grouped": {"quantiser": "grouped"},
    "grouped, factorised": {"quantiser": "grouped", "codebook_dim": 8},
    "hierarchical": {"quantiser": "hierarchical"},
    "cosine": {"cosine": True, "codebook_dim": 4},
    "hierarchical, cosine": {"quantiser": "hierarchical", "cosine": True, "codebook_dim": 4},
    "random start": {"kmeans": False, "expire": 0.0},
}


def model_of(settings: CodecSettings) -> CodecModel:
    torch.manual_seed(0)
    model = CodecModel(settings).train()
    model(torch.randn(4, 1, 1600), quantize=True)  # the first call sets the codebooks by k-means
    return model.eval()
