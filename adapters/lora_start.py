"""First values of A and B: at random, or from the base's own directions. Plain tensors; it knows no model.

PiSSA: Meng et al. 2024, arXiv:2404.02948. OLoRA: Büyükakyüz 2024, arXiv:2406.01775.
"""

import hashlib
import math

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError


def telling_directions(
    said: Float[Tensor, "N D"], other: Float[Tensor, "M D"], n: int, ridge: float = 0.05
) -> Float[Tensor, "n D"]:
    """The n directions along which vectors `said` are largest against `other` ones, orthogonal under these.

    Generalised principal directions: the leading eigenvectors of the second moment of `said`, whitened by that of
    `other` (as in linear discriminants, Fisher 1936). `ridge` is added to the latter, in shares of its mean variance,
    since there are few words. Each is scaled so that its product with `said` has the mean square 1.
    """
    said, other = said.double(), other.double()
    spread = other.T @ other / len(other)
    spread += ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
    root = torch.linalg.cholesky(spread)
    white = torch.linalg.solve_triangular(root, said.T, upper=False)  # [D, N]
    leading = torch.linalg.eigh(white @ white.T / len(said)).eigenvectors[:, -n:].flip(-1)  # [D, n]
    found = torch.linalg.solve_triangular(root.T, leading, upper=True).T  # [n, D]
    found = found * found.sum(1, keepdim=True).sign()  # eigenvectors have no sign of their own
    return (found / (found @ said.T).square().mean(1, keepdim=True).sqrt()).float()


def seed_of(seed: int, name: str) -> int:
    """A generator's seed for one module: depends on nothing but the run's seed and the module's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1


def draw_a(shape: tuple[int, ...], init: str, rank: int, generator: torch.Generator) -> Tensor:
    """A as peft draws it: uniform within ±1/√in (Kaiming with a = √5), or normal with deviation 1/r."""
    if init == "gaussian":
        return torch.randn(shape, generator=generator) / rank
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def principal(weight: Tensor, rank: int, scale: float, init: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A and B with scale · B A = the base's own leading part: by SVD (PiSSA) or QR (OLoRA)."""
    if rank > min(weight.shape):
        raise UserError(
            f"lora.init: {init} needs a rank of at most {min(weight.shape)} for this model, not {rank}.",
            fix="Lower lora.rank, or set lora.init to default.",
        )
    if init == "olora":
        q, r = torch.linalg.qr(weight)
        return r[:rank].contiguous() / math.sqrt(scale), q[:, :rank].contiguous() / math.sqrt(scale)
    if init == "pissa":
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    else:
        u, s, vh = _leading_svd(weight, rank, int(init.rsplit("_", 1)[1]), generator)
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def _leading_svd(
    weight: Tensor, rank: int, n_iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate leading singular vectors by subspace iteration (Halko et al. 2011, algorithm 4.4)."""
    width = min(rank + 8, min(weight.shape))  # a few more directions than asked for, as the paper advises
    start = torch.randn(weight.shape[1], width, generator=generator).to(weight)
    q = torch.linalg.qr(weight @ start).Q
    for _ in range(n_iterations):
        q = torch.linalg.qr(weight @ torch.linalg.qr(weight.T @ q).Q).Q
    u, s, vh = torch.linalg.svd(q.T @ weight, full_matrices=False)
    return q @ u, s, vh
