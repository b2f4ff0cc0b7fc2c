"""The HTTP proxy through which a party calls the hub, where its network has one.

It is asked by CONNECT for a tunnel and sees the hub's name and port, and inside the tunnel TLS alone. One that is named
holds; else what HTTPS_PROXY or ALL_PROXY says, except for hosts in NO_PROXY. Nothing of this goes to any other address:
what a party's own processes say to each other stays on its machine, whatever the environment says.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import quote, unquote, urlsplit

from statfed.core.errors import UsageError

NONE = "none"
_WANT = "want http://HOST:PORT, http://USER:PASSWORD@HOST:PORT, or none"


@dataclass(frozen=True)
class Proxy:
    """Where a proxy is, and as whom it is asked. source: what named it."""

    host: str
    port: int
    source: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT, to show."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With user and password, for whoever has to call it."""
        who = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"http://{who}{self.address}"

    @property
    def headers(self) -> dict[str, str]:
        """What is sent along with CONNECT."""
        if self.user is None:
            return {}
        return {"Proxy-Authorization": "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")}


def proxy_for(address: str, given: str | None, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy by which HOST:PORT is called; None where it is called directly.

    given: as it was named to a command, `none` for none whatever the environment says. Raises UsageError for what is no
    proxy that can be used; its password is never shown.
    """
    if given is not None:
        return None if given == NONE else read_proxy(given, "--proxy")
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        if value := environment.get(name):
            if excepted(address, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
                return None
            return read_proxy(value, name)
    return None


def read_proxy(value: str, source: str) -> Proxy:
    """A proxy as it is written: http://HOST:PORT, or HOST:PORT."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{source}: got no proxy that can be read; {_WANT}") from None
    if parts.scheme != "http":
        raise UsageError(f"{source}: got a proxy that is asked by {parts.scheme}; {_WANT}")
    if not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"{source}: got no proxy that can be read; {_WANT}")
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port or 3128, source, user, unquote(parts.password or ""))


def excepted(address: str, no_proxy: str) -> bool:
    """Is HOST:PORT among what NO_PROXY excepts? Names stand for themselves and what is below them, networks for their
    addresses, * for all; a port after one restricts it.

    >>> excepted("hub.example:8443", "localhost, .example"), excepted("10.1.2.3:1", "10.0.0.0/8")
    (True, True)
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]").lower()
    for entry in (one.strip().lower() for one in no_proxy.split(",")):
        name, _, only = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.strip("[]")
        if only not in ("", port) or not name:
            continue
        if name == "*" or host == name.lstrip(".") or host.endswith("." + name.lstrip(".")) or _within(host, name):
            return True
    return False


def carried(proxy: Proxy | None, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which https goes by this proxy, or by none, and all else by none."""
    kept = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
    return kept | ({"NO_PROXY": "*"} if proxy is None else {"HTTPS_PROXY": proxy.url})


def _within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
