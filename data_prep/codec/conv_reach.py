"""How far a stack of convolutions sees, in codec frames to either side: enough context to compute any stretch exactly.

Counted from the layers themselves, in the order in which they stand in the module, side branches included as if they
were in line: never too little, and at most a frame or two too much.
"""

import math

from torch import nn


def decoder_reach_frames(stack: nn.Module, *, causal: bool = False) -> int:
    """Frames to either side of a frame that decide its samples, walked from the output back to the frames."""
    reach = 0
    for conv in reversed(_convolutions(stack)):
        if isinstance(conv, nn.ConvTranspose1d):
            reach = math.ceil((reach + conv.kernel_size[0]) / conv.stride[0])
        else:
            reach += _span(conv, causal)
    return reach


def encoder_reach_samples(stack: nn.Module, *, causal: bool = False) -> int:
    """Samples before a frame's first and after its last that decide it, walked from the frames back to the audio."""
    reach = 0
    for conv in reversed(_convolutions(stack)):
        reach = reach * conv.stride[0] + _span(conv, causal)
    return reach


def _convolutions(stack: nn.Module) -> list[nn.Conv1d | nn.ConvTranspose1d]:
    return [module for module in stack.modules() if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d))]


def _span(conv: nn.Conv1d | nn.ConvTranspose1d, causal: bool) -> int:
    span = (conv.kernel_size[0] - 1) * conv.dilation[0]
    return span if causal else math.ceil(span / 2) + conv.stride[0] // 2
