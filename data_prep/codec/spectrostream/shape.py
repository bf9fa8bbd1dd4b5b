"""The sizes of a SpectroStream codec and the names of its tensors. No torch here.

Fixed in the official 48 kHz stereo model (magenta-rt 2.0.3, `jax/spectrostream.py`): the spectrum, the strides and how
widths grow. Widths themselves are read from the tensors, so that small models for tests have the same form.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SAMPLE_RATE_HZ = 48_000
CHANNELS = 2
WINDOW_SAMPLES, STEP_SAMPLES = 960, 480
N_BINS = WINDOW_SAMPLES // 2
"""The spectrum keeps the constant part and leaves out the highest bin."""
STRIDES = ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 2), (2, 1))
"""Of each block of the encoder, in time and frequency; the decoder goes back in reverse."""
GROWTH = (2, 1, 2, 1, 1, 2, 1)
"""How much wider each block of the encoder makes its input; the last one hears both channels together."""
N_SPLIT = 6
"""Blocks of the encoder that hear each channel alone; the decoder has as many at its end."""
STEPS_PER_FRAME = 4
HOP_SAMPLES = STEP_SAMPLES * STEPS_PER_FRAME
"""1920 samples: 25 frames per second."""
LOOKAHEAD_FRAMES = 1
"""The decoder says a frame when it has heard the next one."""
N_LM_CODEBOOKS = 12
"""Of the quantiser's levels, how many Magenta RealTime 2 uses."""


@dataclass(frozen=True)
class CodecShape:
    """Widths of encoder and decoder, features per frame, levels of the quantiser and entries of each."""

    encoder_width: int = 32
    decoder_width: int = 64
    features: int = 256
    levels: int = 64
    card: int = 1024


def shape_of(shapes: Mapping[str, tuple[int, ...]]) -> CodecShape:
    """The sizes that these tensors have, by their names without `params/`. Without an encoder its width is 0.

    Raises:
        KeyError: a tensor that tells them is missing.
    """
    levels, card, features = shapes["quantizer/embedding"]
    decoder_width = shapes["decoder/output_layer/base_conv_last/conv/kernel"][2]
    encoder_width = shapes.get("encoder/base_conv_first/conv/kernel", (0,))[-1]
    return CodecShape(encoder_width, decoder_width, features, levels, card)


def plain_name(name: str) -> str:
    """A tensor's name as the codec's own files have it, also where a checkpoint holds the codec beside the LM."""
    return name.removeprefix("params/").removeprefix("soundstream/")


def official_name(path: str) -> str:
    """The official name of one of our parameters: modules carry the official names, leaves and shortcuts differ."""
    module, _, leaf = path.replace(".", "/").rpartition("/")
    if module == "quantizer":
        return path.replace(".", "/")
    module = module.removesuffix("shortcut") + "shortcut_layer/conv1x1" if module.endswith("/shortcut") else module
    return f"{module}/conv/{'kernel' if leaf == 'weight' else 'bias'}"
