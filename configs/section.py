"""What every section of the settings tree has in common: unknown keys refused, defaults checked, settings that
contradict each other refused, docstrings as help.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A group of settings. Each field carries a docstring below it, which is its help text."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        validate_assignment=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def conflicts(self) -> Iterator[str]:
        """A sentence for each pair of settings that contradict each other, with both names and what to do."""
        yield from ()

    @model_validator(mode="after")
    def _without_conflicts(self) -> "Section":
        found = list(self.conflicts())
        if found:
            raise ValueError("\n".join(found))
        return self
