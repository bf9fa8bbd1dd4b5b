"""Where an adapter begins to tell the trigger from all other words.

Cached text states make it impossible to learn the trigger's embedding as in textual inversion (Gal et al. 2022,
arXiv:2208.01618), and a vector beside the adapter would be no LoRA that others can read. But the update of the text
projection is B A, applied to the states: where rows of A point along what only captions with the trigger have, B holds
vectors that are added to the trigger's words and to no others. From random rows it takes long to find these
directions, and until then what is learnt sounds in every prompt.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from adapters.lora import TrainableAdapter
from adapters.lora_start import telling_directions
from finetune.batches import Clip, ClipSource

LOUDNESS = 2.0
"""Mean size of the product of such a row with the words of a caption: some six times that of a random row."""


def start_from_trigger(
    adapter: TrainableAdapter,
    clips: Sequence[Clip],
    source: ClipSource,
    other: Sequence[Num[np.ndarray, "_ D"]],
    n: int,
) -> list[str]:
    """Let n rows of A tell the clips' captions from the same without the trigger and from `other` texts' states.

    Returns the names of the modules whose A was changed: none without a trigger, or for a base without text states.
    """
    said = sorted({caption for clip in clips for caption in clip.captions})
    bare = sorted({caption for clip in clips for caption in clip.bare})
    if not n or not bare or said == bare:
        return []
    against = [*(source.text_state(caption) for caption in bare), *other]
    with_trigger = [source.text_state(caption) for caption in said]
    if not np.issubdtype(with_trigger[0].dtype, np.floating):  # style tokens are no states
        return []
    return adapter.start_from(LOUDNESS * telling_directions(_rows(with_trigger), _rows(against), n))


def _rows(states: Sequence[Num[np.ndarray, "_ D"]]) -> Float[Tensor, "N D"]:
    return torch.from_numpy(np.concatenate(states)).float()
