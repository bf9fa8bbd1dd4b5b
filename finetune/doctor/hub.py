"""Is the model hub within reach? The only look at the network, with a short timeout, and skipped when asked."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from finetune.doctor.check import Check

TIMEOUT_SEC = 4.0
TRUE = {"1", "true", "yes", "on"}
LOCAL_WAY = "a folder with a base's files serves as --base; `--base starter` needs no download"


def cache_folder() -> Path:
    """Where downloaded models are kept, by the hub library's own rules (HF_HUB_CACHE, then HF_HOME, then XDG)."""
    xdg = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{xdg}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def check_hub(*, offline: bool) -> Check:
    """One HEAD request for a small file of musicgen-small; where the hub is out of reach a local base still works."""
    name = "Model hub"
    if offline:
        return Check(name, "note", "not asked (--offline)")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        return Check(name, "note", "not asked (HF_HUB_OFFLINE is set)", LOCAL_WAY)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    request = urllib.request.Request(f"{endpoint}/facebook/musicgen-small/resolve/main/config.json", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as answer:
            return Check(name, "ok", f"{endpoint} answers ({answer.status})")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(name, "note", f"{endpoint} is out of reach: {reason}", LOCAL_WAY)
