"""Who may play: pages of this server on this machine, and others only with the token.

Any page in a browser can reach a server on loopback. So a request's Host must name loopback (a name that was pointed
here, as DNS rebinding does, does not), and a WebSocket's Origin must be this very server. Programs that are no
browsers send no Origin. Bound to another address, everything needs the token besides.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Access:
    """The rule of one server. `token` is None on loopback."""

    token: str | None

    @classmethod
    def for_host(cls, host: str) -> "Access":
        """None is needed on loopback; for any other address a new token is drawn."""
        return cls(None if is_loopback(host) else secrets.token_urlsafe(24))

    def refusal(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Why a request is refused; empty where it is not."""
        host = headers.get("host", "")
        if self.token is None and _name_of(host) not in LOOPBACK_NAMES:
            return "this server is for this machine alone: open it as http://127.0.0.1"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return "a page of another origin may not play here"
        if self.token is not None and not hmac.compare_digest(query.get("token", "").encode(), self.token.encode()):
            return "the token is missing or wrong: use the whole address that the terminal shows"
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
