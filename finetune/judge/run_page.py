"""The verdict at the top of a run's report.html."""

import os
import re
from pathlib import Path

from data_prep.safe_write import write_text
from finetune.judge.findings import Verdict
from finetune.judge.page import summary_html
from finetune.run_folder import RunFolder

BEGIN, END = "<!-- verdict -->", "<!-- end of verdict -->"


def show_on_run(run: RunFolder, verdict: Verdict, page: Path) -> bool:
    """Put the verdict below the header of the run's page, in the place of an older one; False without such a page."""
    try:
        text = run.report.read_text("utf-8")
    except OSError:
        return False
    link = os.path.relpath(page.resolve(), run.report.resolve().parent)
    if os.sep != "/":
        link = link.replace(os.sep, "/")
    shown = with_verdict(text, summary_html(verdict, link))
    if shown == text:
        return False
    write_text(run.report, shown)
    return True


def with_verdict(page: str, verdict: str) -> str:
    """A page with the verdict in it; unchanged where it has no header to put it under."""
    bare = re.sub(f"{BEGIN}.*?{END}\n?", "", page, flags=re.DOTALL)
    head, found, rest = bare.partition("</header>\n")
    return f"{head}{found}{BEGIN}{verdict}{END}\n{rest}" if found else page
