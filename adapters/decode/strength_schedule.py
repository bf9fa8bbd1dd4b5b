"""Values over time: an adapter's strength as `1`, or as points in seconds `0:1,10:0` with straight lines between."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError


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
            UserError: neither; `what` says what the text was for.
        """
        try:
            if ":" not in text:
                return cls.constant(float(text))
            points = tuple(_point(part) for part in text.split(","))
        except ValueError as error:
            raise UserError(
                f"{what} cannot be {text!r}",
                fix="give a number, e.g. 0.8, or seconds and values, e.g. 0:1,10:0",
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
    return float(time), float(value)
