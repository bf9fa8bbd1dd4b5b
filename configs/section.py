"""What every section of the settings tree has in common: unknown keys refused, defaults checked, docstrings as help."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings. Each field carries a docstring below it, which is its help text."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        validate_assignment=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
