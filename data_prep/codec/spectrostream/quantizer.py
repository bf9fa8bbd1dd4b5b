"""Features to codes and back by residual vector quantisation: each level says what the levels before left over."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantizer(nn.Module):
    """The codebooks of all levels."""

    def __init__(self, levels: int, card: int, features: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(levels, card, features))

    def encode(self, features: Float[Tensor, "B T E"], n_codebooks: int) -> Int[Tensor, "B K T"]:
        """The nearest entry at each level, for the first `n_codebooks` levels."""
        rest, codes = features, []
        for book in self.embedding[:n_codebooks]:
            distance = book.square().sum(-1) - 2 * rest @ book.T  # what is the same for all entries is left out
            code = distance.argmin(-1)
            codes.append(code)
            rest = rest - book[code]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B T E"]:
        """The sum of the entries of as many levels as there are codes."""
        return sum(book[codes[:, level]] for level, book in enumerate(self.embedding[: codes.shape[1]]))  # pyright: ignore[reportReturnType]
