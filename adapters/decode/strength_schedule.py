"""Values over time: an adapter's strength as `1`, or as points in seconds `0:1,10:0` with straight lines between."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError

MAX_STRENGTH = 100.0
"""As for `woodshed merge`. Useful strengths lie between −1 and 2."""
MAX_SEC = 86_400.0


@dataclass(frozen=True)
class StrengthSchedule:
    """Points (second, value) in order; before the first and behind the last the value stays."""

    points: Sequence[tuple[float, float]]

    @classmethod
    def constant(cls, value: float) -> "StrengthSchedule":
        """The same value always."""
        return cls(((0.0, float(value)),))

    @classmethod
    def read(cls, text: str, what: str) -> "StrengthSchedule":
        """`0.8`, or `0:1,10:0` (second:value).

        Raises:
            UserError: neither, or a number that is none or too large to mean anything; `what` says what it was for.
        """
        try:
            if ":" not in text:
                return cls.constant(_number(text))
            points = tuple(_point(part) for part in text.split(","))
        except ValueError as error:
            raise UserError(
                f"{what} cannot be {text!r}",
                fix=f"give a number up to {MAX_STRENGTH:g}, e.g. 0.8, or seconds and values, e.g. 0:1,10:0",
            ) from error
        if list(points) != sorted(points, key=lambda point: point[0]):
            raise UserError(f"{what}: the seconds in {text!r} must rise", fix="e.g. 0:1,10:0")
        return cls(points)

    @property
    def is_constant(self) -> bool:
        """Whether time makes no difference."""
        return len({value for _, value in self.points}) == 1

    def at(self, second: float) -> float:
        """The value at this moment."""
        after = bisect_right([time for time, _ in self.points], second)
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (start, low), (end, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (second - start) / (end - start)

    def __str__(self) -> str:
        if self.is_constant:
            return f"{self.points[0][1]:g}"
        return ",".join(f"{time:g}:{value:g}" for time, value in self.points)


def _point(text: str) -> tuple[float, float]:
    time, _, value = text.partition(":")
    return _number(time, MAX_SEC), _number(value)


def _number(text: str, largest: float = MAX_STRENGTH) -> float:
    """A number within bounds: float() also reads nan and inf, which would play as noise or silence."""
    value = float(text)
    if not abs(value) <= largest:
        raise ValueError(f"{text} is beyond ±{largest:g}")
    return value
