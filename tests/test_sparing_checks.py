"""What has been checked is not checked again, and nothing else is left out."""

import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import sparing_checks
import torch
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError
from sparing_checks import jaxtyped
from torch import Tensor

checked: Any = jaxtyped(typechecker=beartype)
ONE, TWO = torch.zeros(1, 3), torch.zeros(2, 3)


def test_every_kind_of_argument_is_checked() -> None:
    @checked
    def both(x: Float[Tensor, "B 3"], y: Float[Tensor, " B"], *, name: str | None = None) -> float:
        return float(x.sum() + y.sum())

    for _ in range(3):
        assert both(ONE, ONE[:, 0]) == both(TWO, TWO[:, 0], name="a") == 0
    wrong: list[Any] = [(ONE, TWO[:, 0]), (ONE[:, :2], ONE[:, 0]), (ONE.long(), ONE[:, 0]), ([0.0], ONE[:, 0])]
    for x, y in wrong:
        with pytest.raises(TypeCheckError):
            both(x, y)
    with pytest.raises(TypeCheckError):
        both(ONE, ONE[:, 0], name=1)


def test_every_kind_of_result_is_checked() -> None:
    given = SimpleNamespace(now=ONE[0])

    @checked
    def row(x: Float[Tensor, "B D"]) -> Float[Tensor, " D"] | None:
        return given.now

    for now in (ONE[0], None, ONE[0], None):
        given.now = now
        assert row(TWO) is now
    for now in (ONE[0, :2], ONE, "no row"):
        given.now = now
        for _ in range(2):
            with pytest.raises(TypeCheckError):
                row(TWO)


def test_values_are_looked_at_where_they_matter() -> None:
    @checked
    def counted(n: int) -> Int[Tensor, "{n}"]:  # noqa: F821
        return torch.arange(min(n, 4))

    assert [len(counted(n)) for n in (1, 2, 4, 4)] == [1, 2, 4, 4]
    with pytest.raises(TypeCheckError):
        counted(5)


def test_what_is_inside_containers_counts() -> None:
    @checked
    def of_all(parts: list[Tensor], names: dict[str, int]) -> int:
        return len(parts) + len(names)

    for _ in range(2):
        assert of_all([ONE], {"a": 1}) == 2
    for parts, names in (([3], {"a": 1}), ([ONE], {"a": "1"}), ([ONE], {1: 1})):
        with pytest.raises(TypeCheckError):
            of_all(parts, names)


def test_a_container_that_holds_itself() -> None:
    @checked
    def size(parts: dict[str, Any]) -> int:
        return len(parts)

    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert [size(endless) for _ in range(3)] == [1] * 3


def test_dataclasses_and_methods() -> None:
    @checked
    @dataclass
    class Pair:
        left: Float[Tensor, " D"]
        right: Float[Tensor, " D"]

        @checked
        def scaled(self, by: float) -> Float[Tensor, " D"]:
            return self.left * by

    for _ in range(2):
        assert Pair(ONE[0], ONE[0]).scaled(2.0).shape == (3,)
        with pytest.raises(TypeCheckError):
            Pair(ONE[0], ONE[0, :2])
    with pytest.raises(TypeCheckError):
        Pair(ONE[0], ONE[0]).scaled("2")  # pyright: ignore[reportArgumentType]


def test_such_a_call_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks, plain = [], sparing_checks.PLAIN

    def counting(fn: Any, **more: Any) -> Any:
        made = plain(fn, **more)
        return lambda *args, **kwargs: (checks.append(1), made(*args, **kwargs))[1]

    monkeypatch.setattr(sparing_checks, "PLAIN", counting)

    @checked
    def same(x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return x + 1

    for _ in range(10):
        same(ONE)
        same(TWO)
    assert len(checks) == 2 + 2, "arguments, and once more with the result"


def test_nothing_is_kept_alive() -> None:
    @checked
    def added(x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return x + 1

    made = [weakref.ref(added(ONE)) for _ in range(3)]
    assert [ref() for ref in made] == [None] * 3


def test_our_own_packages_are_checked() -> None:
    from adapters.decode.sampling import Sampling

    with pytest.raises(TypeCheckError):
        Sampling("loud")  # pyright: ignore[reportArgumentType]
