"""The proxy of a party: which one is taken, what it is told, what stands in its way; none is taken or left silently."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from statfed.core.errors import UsageError
from statfed.core.pilot.certificates import new_authority
from statfed.core.pilot.checks import call
from statfed.core.pilot.proxy import Proxy, carried, excepted, proxy_for, read_proxy
from tests.connect import proxy
from tests.core.test_pilot import hub

HUB = "hub.example:8443"


@pytest.mark.parametrize(
    ("given", "environment", "want"),
    [
        (None, {}, None),
        ("http://a:1", {"HTTPS_PROXY": "http://b:2"}, "a:1"),
        ("none", {"HTTPS_PROXY": "http://b:2"}, None),
        ("http://a:1", {"NO_PROXY": "*"}, "a:1"),
        (None, {"HTTPS_PROXY": "http://b:2"}, "b:2"),
        (None, {"https_proxy": "b:2", "HTTPS_PROXY": "http://c:3"}, "b:2"),
        (None, {"ALL_PROXY": "http://b"}, "b:3128"),
        (None, {"HTTP_PROXY": "http://b:2"}, None),
        (None, {"HTTPS_PROXY": "http://b:2", "NO_PROXY": ".example"}, None),
        (None, {"HTTPS_PROXY": "http://b:2", "no_proxy": "other.org, localhost"}, "b:2"),
        (None, {"HTTPS_PROXY": ""}, None),
        (None, {"HTTPS_PROXY": "http://[::1]:2"}, "[::1]:2"),
    ],
)
def test_the_named_proxy_is_taken_and_else_that_of_the_environment(
    given: str | None, environment: Mapping[str, str], want: str | None
) -> None:
    found = proxy_for(HUB, given, environment)
    assert (found and found.address) == want


@pytest.mark.parametrize(
    ("address", "no_proxy", "want"),
    [
        ("hub.example:8443", "*", True),
        ("hub.example:8443", "hub.example", True),
        ("hub.example:8443", "HUB.example ", True),
        ("hub.example:8443", "example", True),
        ("hub.example:8443", ".example", True),
        ("hub.example:8443", "hub.example:8443", True),
        ("hub.example:8443", "hub.example:443", False),
        ("hub.example:8443", "ub.example", False),
        ("nothub.example:8443", "hub.example", False),
        ("hub.example:8443", ",, ", False),
        ("10.1.2.3:8443", "10.0.0.0/8", True),
        ("11.1.2.3:8443", "10.0.0.0/8", False),
        ("10.1.2.3:8443", "10.1.2.3", True),
        ("[2001:db8::1]:8443", "2001:db8::/32", True),
        ("[2001:db8::1]:8443", "[2001:db8::1]", True),
    ],
)
def test_what_no_proxy_excepts_is_called_directly_and_nothing_else(address: str, no_proxy: str, want: bool) -> None:
    assert excepted(address, no_proxy) is want


@pytest.mark.parametrize(
    "value",
    [
        "socks5://p:1",
        "https://p:1",
        "http://",
        "http://p:99999",
        "http://p:0",
        "http://p:1/path",
        "http://p:1?q",
        "p:x",
    ],
)
def test_what_is_no_proxy_of_http_is_refused_and_not_left_out(value: str) -> None:
    for given, environment in ((value, {}), (None, {"HTTPS_PROXY": value})):
        with pytest.raises(UsageError, match="want http://HOST:PORT"):
            proxy_for(HUB, given, environment)


def test_a_password_is_carried_and_never_shown() -> None:
    found = read_proxy("http://me:s%40cret@p:1", "--proxy")
    assert (found.user, found.password, found.url) == ("me", "s@cret", "http://me:s%40cret@p:1")
    assert "cret" not in repr(found) + found.address
    with pytest.raises(UsageError) as caught:
        read_proxy("socks5://me:s%40cret@p:1", "--proxy")
    assert "cret" not in str(caught.value)


def test_a_childs_environment_has_this_proxy_for_https_and_no_other_for_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By httpx's own reading of it, which Flower's SuperNode uses."""
    given = {
        "HTTP_PROXY": "http://x:1",
        "all_proxy": "http://x:2",
        "https_proxy": "http://x:3",
        "no_proxy": "p",
        "A": "b",
    }
    by = Proxy("127.0.0.1", 9, "--proxy", "me", "secret")
    with proxy(b"403 Forbidden") as seen:
        by = read_proxy(seen.url, "--proxy")
        for each in (by, None):
            made = carried(each, given)
            assert made["A"] == "b"
            for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
                monkeypatch.delenv(name)
            for name, value in made.items():
                monkeypatch.setenv(name, value)
            before = len(seen.heads)
            with httpx.Client(timeout=5) as client:
                for url in ("http://127.0.0.1:9", "https://127.0.0.1:9"):
                    with pytest.raises(httpx.TransportError):
                        client.get(url)
            assert len(seen.heads) - before == (1 if each else 0)
        assert seen.heads[-1].startswith(b"CONNECT 127.0.0.1:9 ")


def failed(address: str, issuer: str, by: Proxy, signed: Mapping[str, str] | None = None) -> list[str]:
    return [one.code for one in call(address, issuer, datetime.now(UTC), by, signed) if one.state == "failed"]


def test_a_call_through_a_proxy_and_what_stands_in_its_way(tmp_path: Path) -> None:
    authority = new_authority("pilot", timedelta(days=1))
    pem, other = authority.pem.decode(), new_authority("other", timedelta(days=1))
    signed = {"flwr-signature": "c2VjcmV0"}
    with hub(tmp_path, authority) as address:
        with proxy() as seen:
            by = read_proxy(seen.url, "--proxy")
            assert failed(address, pem, by=by, signed=signed) == []
            (head,), (inside,) = seen.heads, seen.inside
            assert head.splitlines()[0].rsplit(b" ", 1)[0] == f"CONNECT {address}".encode()
            assert b"flwr" not in head.lower()  # nothing but whom it is to call
            assert inside[:2] == b"\x16\x03"  # a handshake of TLS
            assert b"flwr" not in inside
            assert failed(address, other.pem.decode(), by=by) == ["certificate-authority"]
        assert failed(address, pem, by=by) == ["reach"]  # it is down
        with proxy(b"403 Forbidden") as seen:
            assert failed(address, pem, by=read_proxy(seen.url, "")) == ["proxy-refused"]
        with proxy(wants=b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n") as seen:
            named = seen.url.replace("//", "//me:secret@")
            assert failed(address, pem, by=read_proxy(seen.url, "")) == ["proxy-password"]
            assert failed(address, pem, by=read_proxy(named.replace("secret", "guess"), "")) == ["proxy-password"]
            assert failed(address, pem, by=read_proxy(named, "")) == []
    assert failed(HUB, pem, by=Proxy("no-such-proxy.invalid", 1, "--proxy")) == ["name"]


def test_the_certificate_that_a_proxy_shows_instead_is_named(tmp_path: Path) -> None:
    mine, theirs = (
        new_authority("pilot", timedelta(days=1)),
        new_authority("inspection of Example Ltd", timedelta(days=1)),
    )
    with hub(tmp_path, theirs) as address, proxy() as seen:
        found = list(call(address, mine.pem.decode(), datetime.now(UTC), read_proxy(seen.url, "")))
    assert found[-1].code == "certificate-authority"
    assert "inspection of Example Ltd" in found[-1].what
