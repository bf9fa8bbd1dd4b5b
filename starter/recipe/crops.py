"""Random crops of rendered pieces, whole batches at once; batch n of a seed is always the same."""

from pathlib import Path

import torch

from finetune.codec_train.crops import Crops
from finetune.codec_train.settings import CodecSettings
from starter.recipe.collection import Collection


def crops_of(folder: Path, size: CodecSettings, device: torch.device) -> Crops:
    """All audio of a collection, on the device that trains.

    Raises:
        ValueError: the collection has another sample rate than the codec.
    """
    collection = Collection(folder)
    if collection.sample_rate_hz != size.sample_rate_hz:
        raise ValueError(f"the collection is at {collection.sample_rate_hz} Hz, the codec at {size.sample_rate_hz}")
    pieces = [collection.audio(index) for index in range(len(collection))]
    return Crops(pieces, round(size.crop_sec * size.sample_rate_hz), size.batch_size, device)
