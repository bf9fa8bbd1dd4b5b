"""The language model laid out for playing on a CPU: the same modules, with products in the arithmetic that pays there.

One row at a time is bound by reading weights; `adapters.decode.projections` holds each matrix so that a frame reads
few bytes. Results are those of the kind chosen: `fp32` rounds nothing. Gradients do not pass.
"""

import copy
from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from adapters.decode.projections import Biased, Kind, Projection, projection
from adapters.decode.strengths import StrengthBank, Turnable
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.low_rank import LowRank
from configs.errors import UserError

Wrap = Callable[[str, Projection], Projection]
"""Given a module's name and its product, the product to use instead: adapters that are turned while playing."""


class PlayedLinear(nn.Module):
    """A linear map around a product of two-dimensional inputs."""

    def __init__(self, product: Projection) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N E"]:
        """The product, whatever stands before the last dimension."""
        return self.product(x.reshape(-1, x.shape[-1])).unflatten(0, x.shape[:-1])


def laid_out_for_playing(lm: MagentaLM, kind: Kind, wrap: Wrap | None = None) -> MagentaLM:
    """A model for `MagentaSteps` that shares norms and embeddings with `lm`; its matrices are copies of this kind.

    Every linear map inside layers, the one between the stacks and the heads are laid out; `wrap` may add to each, below
    its bias.
    """
    memo = {id(held): held for held in [*lm.parameters(), *lm.buffers()]}
    played = copy.deepcopy(lm, memo)
    for name, module in lm.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(("temporal.", "depth.")) and name != "depth.reserved":
            product: Projection = projection(kind, module.weight.detach())
            product = product if wrap is None else wrap(name, product)
            _put(played, name, PlayedLinear(product if module.bias is None else Biased(product, module.bias.detach())))
    return played


def adapted_products(lm: MagentaLM, adapters: Mapping[str, Mapping[str, LowRank]], strengths: StrengthBank) -> Wrap:
    """A `wrap` that lets every adapter add to the products it touches, each at the strength it has at that moment.

    Raises:
        UserError: an adapter touches a module that is not laid out here.
    """
    known = {name: module.weight for name, module in lm.named_modules() if isinstance(module, nn.Linear)}
    strange = sorted({module for updates in adapters.values() for module in updates} - known.keys())
    if strange:
        raise UserError(
            f"the adapter changes a module that this base does not have: {strange[0]}",
            fix="choose the base that the adapter was trained on; its adapter_config.json names it",
        )

    def wrap(name: str, product: Projection) -> Projection:
        weight = known[name].detach().float().cpu()
        touched = [
            {0: Turnable.of(updates[name], weight, name)} if name in updates else {} for updates in adapters.values()
        ]
        return strengths.adapt(product, [len(weight)], touched)

    return wrap


def bytes_per_frame(lm: MagentaLM, bytes_per_weight: float) -> int:
    """What one frame reads of matrices: the stack over frames and the heads once, the stack over levels 12 times.

    Counted before laying out, for one row.
    """

    def weights(part: nn.Module) -> int:
        return sum(module.weight.numel() for module in part.modules() if isinstance(module, nn.Linear))

    once = weights(lm.temporal) + weights(lm.depth.heads)
    return round(bytes_per_weight * (once + lm.n_codebooks * (weights(lm.depth.layers) + weights(lm.depth.adapter))))


def _put(lm: MagentaLM, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, module)
