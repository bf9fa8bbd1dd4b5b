"""Where a codec's configuration and weights are: inside a base's checkpoint, or in a folder of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_prep.fingerprint import fingerprint


@dataclass(frozen=True)
class CodecSource:
    """A codec that has not been loaded.

    Attributes:
        kind: the `model_type` of its configuration, a name in `registry`.
        config: the configuration as it stands in the file.
        tensors: reads the weights, under the names that the model's own module has.
        where: the folder, for messages.
        channels: of the audio: a mono codec reads 2 channels one by one. None: as many as the codec has itself.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: Callable[[], dict[str, Tensor]]
    where: Path
    channels: int | None = None

    def fingerprint(self) -> str:
        """A name for the weights, read for it alone."""
        return weights_fingerprint(self.tensors())


def weights_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A name for a codec's weights: the same for both names that weight norm has in checkpoints."""
    return fingerprint({plain_name(key): tensor for key, tensor in tensors.items()})


def plain_name(key: str) -> str:
    """A tensor's name with weight norm spelt the older of its two ways."""
    plain = key.replace(".parametrizations.weight.original0", ".weight_g")
    return plain.replace(".parametrizations.weight.original1", ".weight_v")
