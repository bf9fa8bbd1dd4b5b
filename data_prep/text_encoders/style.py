"""Captions as style tokens: what Magenta RealTime 2 follows in the place of text states.

The style model stands beside the checkpoint. A random base has none; its checkpoint says that a stand-in will do, whose
tokens tell texts apart and mean nothing else. It is never taken for an official base.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.magenta_rt2.files import STAND_IN, STYLE_KEY, MagentaFiles, find_files, header
from data_prep.musiccoca import MusicCoCa
from data_prep.style_tokens import N_TOKENS, Embeddings, StandInStyle, StyleModel, blend

KEPT = 4096
"""Places that are remembered to mix them: so many texts, the last ones that were encoded."""


class StyleEncoder:
    """Each caption becomes one entry: the 12 tokens of its style.

    Tokens cannot be mixed, places in the space of styles can: those of the texts that were encoded are remembered.
    """

    width = N_TOKENS

    def __init__(self, model: StyleModel) -> None:
        self.model = model
        self._places: OrderedDict[bytes, np.ndarray] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """That of the style model."""
        return self.model.fingerprint

    def is_too_long(self, caption: str) -> bool:
        """Whether only the caption's beginning is heard."""
        return self.model.is_too_long(caption)

    def encode(self, captions: Sequence[str]) -> list[Int[Tensor, "1 12"]]:
        """Tokens 0 … 1023."""
        return self._entries(self.model.embed_texts(captions))

    def encode_sound(self, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Int[Tensor, "1 12"]:
        """The style of a recording as a caption would be given: the mean of the places of every 10 s.

        Raises:
            UserError: the recording is empty.
        """
        places = self.model.embed_sound(audio, sample_rate_hz)
        if not len(places):
            raise UserError("There is no sound to take a style from.", fix="Give a recording that is not empty.")
        return self._entries(blend(places, [1.0] * len(places))[None])[0]

    def mix(self, states: Sequence[Tensor], shares: Sequence[float]) -> Int[Tensor, "1 12"] | None:
        """The tokens of the weighted mean of the texts' places; None for entries that were not encoded here."""
        places = [self._places.get(_key(state)) for state in states]
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            return None
        return self._entries(blend(np.stack(known), shares)[None], remember=False)[0]

    def _entries(self, places: Embeddings, *, remember: bool = True) -> list[Int[Tensor, "1 12"]]:
        found = [torch.from_numpy(row[None].copy()) for row in self.model.tokens(places)]
        for entry, place in zip(found, places, strict=True) if remember else ():
            self._places[_key(entry)] = place
            self._places.move_to_end(_key(entry))
        while len(self._places) > KEPT:
            self._places.popitem(last=False)
        return found


def _key(entry: Tensor) -> bytes:
    return entry.cpu().numpy().astype(np.int16).tobytes()


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
