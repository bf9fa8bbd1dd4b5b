"""Captions as style tokens: what Magenta RealTime 2 follows in the place of text states.

The style model stands beside the checkpoint. A random base has none; its checkpoint says that a stand-in will do, whose
tokens tell texts apart and mean nothing else. It is never taken for an official base.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from data_prep.base_files import BaseFiles
from data_prep.magenta_rt2.files import STAND_IN, STYLE_KEY, MagentaFiles, find_files, header
from data_prep.musiccoca import MusicCoCa
from data_prep.style_tokens import N_TOKENS, StandInStyle, StyleModel, blend, stacked

MAX_PLACES = 64
"""Texts whose places are remembered for mixing."""


class StyleEncoder:
    """Each caption becomes one entry: the 12 tokens of its style."""

    width = N_TOKENS

    def __init__(self, model: StyleModel) -> None:
        self.model = model
        self._places: OrderedDict[str, Float32[np.ndarray, " 768"]] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """That of the style model."""
        return self.model.fingerprint

    def is_too_long(self, caption: str) -> bool:
        """Whether only the caption's beginning is heard."""
        return self.model.is_too_long(caption)

    def encode(self, captions: Sequence[str]) -> list[Int[Tensor, "1 12"]]:
        """Tokens 0 … 1023."""
        tokens = self.model.tokens(self.model.embed_texts(captions))
        return [torch.from_numpy(row[None].copy()) for row in tokens]

    def encode_mix(self, captions: Sequence[str], weights: Sequence[float]) -> Int[Tensor, "1 12"]:
        """The tokens of the place between these styles. Only the weights' ratios count.

        Raises:
            UserError: weights that mean nothing.
        """
        place = blend(stacked([self._place(caption) for caption in captions]), weights)
        return torch.from_numpy(self.model.tokens(place[None]).copy())

    def _place(self, caption: str) -> Float32[np.ndarray, " 768"]:
        if caption not in self._places:
            self._places[caption] = self.model.embed_texts([caption])[0]
            if len(self._places) > MAX_PLACES:
                self._places.popitem(last=False)
        self._places.move_to_end(caption)
        return self._places[caption]


def style_model(files: MagentaFiles) -> StyleModel:
    """The style model of a base; the stand-in where the base is a random one that has none.

    Raises:
        UserError: files are missing, or ai-edge-litert is not installed.
    """
    if not files.style_folder.is_dir() and header(files.checkpoint)[1].get(STYLE_KEY) == STAND_IN:
        return StandInStyle()
    return MusicCoCa.load(files.style_folder)


def load(files: BaseFiles, device: str | torch.device = "cpu") -> StyleEncoder:
    """The encoder of a base; it runs on the CPU.

    Raises:
        UserError: files are missing, or ai-edge-litert is not installed.
    """
    return StyleEncoder(style_model(find_files(files.folder)))


def text_encoder_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's style model.

    Raises:
        UserError: files are missing, or ai-edge-litert is not installed.
    """
    return style_model(find_files(files.folder)).fingerprint
