"""Is the hub there? One short question, so that being offline costs a second and not a series of retries.

huggingface_hub (1.33) tries five times with growing pauses, 25 s in all, before it says that there is no network.
"""

from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SEC = 4.0


@contextmanager
def asked_once() -> Iterator[None]:
    """Inside, huggingface_hub works offline, from what is on this machine, where the hub does not answer."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_answers(wait_sec: float = WAIT_SEC) -> bool:
    """Whether anything answers at the hub's address; what it answers does not matter."""
    import httpx
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=wait_sec)
    except httpx.TransportError:
        return False
    except Exception:  # whatever else it is, huggingface_hub will say it better
        return True
    return True
