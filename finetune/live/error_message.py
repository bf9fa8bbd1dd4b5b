"""What went wrong, as pages hear it."""

from typing import Any

from configs.errors import UserError


def error_message(error: Exception) -> dict[str, Any]:
    """What, where and what helps; a fault of the program is said to be one."""
    if isinstance(error, UserError):
        return {"type": "error", "what": error.what, "where": error.where, "fix": error.fix}
    what = f"a fault of the program: {type(error).__name__}: {error}"
    return {"type": "error", "what": what, "where": "", "fix": "Its traceback is in the terminal: please report it."}
