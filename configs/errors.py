"""The one exception for what a person can mend. It knows nothing of how it is shown: the command line does that."""


class UserError(Exception):
    """Something a person can mend: what happened, where, and what to do next.

    The command line prints it in plain words and exits with code 2; `--debug` shows the traceback as well.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__("\n".join(line for line in (what, where, fix) if line))
        self.what = what
        self.where = where
        self.fix = fix
