"""What stands against a connection, in words: certificates where they lie, and the hub called as a party calls it.

A check never mends anything and never sends more than a greeting. Each finding has a code, under which docs/pilot.md
says what to do.
"""

import platform
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from statfed.core import VERSION
from statfed.core.pilot import PROTOCOL
from statfed.core.pilot.proxy import Proxy

WARN = timedelta(days=30)
LARGEST_SKEW = timedelta(minutes=5)
TIMEOUT = 5.0
HEALTH = "/health"
NODE_HEADER = "x-statfed-node"
"""In the hub's answer to who signs as a node does: `known` or `unknown`."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. what: in words, with what was got and wanted where it is not as it should be."""

    code: str
    state: Literal["ok", "warning", "failed"]
    what: str


def versions() -> Finding:
    """What is installed here: the first thing to compare between parties."""
    flower = version("flwr")
    return Finding(
        "versions",
        "ok",
        f"statfed {VERSION}, pilot protocol {PROTOCOL}, flwr {flower}, Python {platform.python_version()}",
    )


def until(code: str, whose: str, start: datetime | None, end: datetime, now: datetime) -> Finding:
    """Does something hold now, and for how long? start: None where it has no beginning."""
    if start is not None and now < start:
        return Finding(
            code, "failed", f"{whose}: valid from {_day(start)} on, and it is {_day(now)} here: one clock is wrong"
        )
    if now >= end:
        return Finding(code, "failed", f"{whose}: expired on {_day(end)}; want it renewed")
    if end - now < WARN:
        return Finding(code, "warning", f"{whose}: expires in {(end - now).days} days, on {_day(end)}: renew it")
    return Finding(code, "ok", f"{whose}: valid until {_day(end)}")


def authority(pem: bytes, now: datetime) -> Finding:
    """Does the authority hold now?"""
    try:
        root = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return Finding("authority-unreadable", "failed", "authority: got no certificate; want that of the kit")
    return until("authority-expired", "authority", root.not_valid_before_utc, root.not_valid_after_utc, now)


def certificate(pem: bytes, key: bytes | None, issuer: bytes, host: str, now: datetime) -> Iterator[Finding]:
    """A server's certificate as it lies in a file, against its key, its issuer, the host it is called by, the clock.

    issuer: the authority's certificate in PEM; key: the secret key in PEM; None where it is not here.
    """
    try:
        leaf = x509.load_pem_x509_certificate(pem)
        root = x509.load_pem_x509_certificate(issuer)
    except ValueError:
        yield Finding("certificate-unreadable", "failed", "certificate: got no PEM; want it as it was written")
        return
    yield authority(issuer, now)
    yield until("certificate-expired", "hub's certificate", leaf.not_valid_before_utc, leaf.not_valid_after_utc, now)
    try:
        leaf.verify_directly_issued_by(root)
        yield Finding("certificate-authority", "ok", "hub's certificate: signed by the pilot's authority")
    except (InvalidSignature, ValueError, TypeError):
        got = leaf.issuer.rfc4514_string()
        yield Finding(
            "certificate-authority", "failed", f"hub's certificate: got one by {got}; want one by the pilot's authority"
        )
    names = _hosts(leaf)
    if host in names:
        yield Finding("certificate-host", "ok", f"hub's certificate: for {host}")
    else:
        yield Finding(
            "certificate-host", "failed", f"hub's certificate: got one for {', '.join(names)}; want {host} among them"
        )
    if key is not None:
        yield _fits(leaf, key)


def call(
    address: str, issuer: str, now: datetime, proxy: Proxy | None = None, signed: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Call the hub as a party does: name, port, proxy, TLS under the pilot's authority, answer, clock, own key.

    address: HOST:PORT; signed: headers that prove the party's own key. Ends with the first thing that stands against
    the rest.
    """
    host, port = split(address)
    first = (host, port, "hub") if proxy is None else (proxy.host, proxy.port, f"proxy ({proxy.source})")
    reached = _reach(*first)
    yield reached
    if reached.state == "failed":
        return
    try:
        context = ssl.create_default_context(cadata=issuer)
    except ssl.SSLError:
        yield Finding("authority-unreadable", "failed", "authority: got no certificate; want that of the kit")
        return
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    connection = _connection(host, port, proxy, context)
    try:
        connection.request("GET", HEALTH, headers=dict(signed or {}))
        answer = connection.getresponse()
        said, status, known = answer.getheader("date"), answer.status, answer.getheader(NODE_HEADER)
        answer.read(1000)
    except ssl.SSLCertVerificationError as error:
        yield _unverified(error, host, port, proxy)
        return
    except ssl.SSLError as error:
        yield Finding("tls", "failed", f"{address}: got no TLS ({error.reason}); want the hub, not another server")
        return
    except OSError as error:
        yield _unanswered(error, address, proxy)
        return
    except HTTPException:
        yield Finding("no-answer", "failed", f"{address}: got no HTTP; want the hub's answer")
        return
    finally:
        connection.close()
    yield Finding("tls", "ok", f"{address}: TLS under the pilot's authority")
    if status == 429:
        yield Finding("refused-often", "failed", f"{address}: this address was refused too often; wait a minute")
        return
    if status != 200:
        yield Finding("no-answer", "failed", f"{address}: got status {status}; want 200, the hub's answer")
        return
    yield Finding("no-answer", "ok", f"{address}: the hub answers")
    if said is not None:
        yield _clock(said, now)
    if known == "unknown":
        yield Finding(
            "node-unknown",
            "failed",
            f"{address}: the hub does not know this party's key: it was revoked, has expired, or was never signed, or "
            "a clock is wrong; want the coordinator to sign this home's request",
        )
    elif known == "known":
        yield Finding("node-unknown", "ok", f"{address}: the hub knows this party's key")


def _connection(host: str, port: int, proxy: Proxy | None, context: ssl.SSLContext) -> HTTPSConnection:
    if proxy is None:
        return HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    connection = HTTPSConnection(proxy.host, proxy.port, timeout=TIMEOUT, context=context)
    connection.set_tunnel(host, port, proxy.headers)
    return connection


def split(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [ADDRESS]:PORT.

    >>> split("[::1]:443")
    ('::1', 443)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _reach(host: str, port: int, whose: str) -> Finding:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT):
            return Finding("reach", "ok", f"{host}:{port}: {whose} reached")
    except socket.gaierror:
        return Finding("name", "failed", f"{host}: got no address for this name; want the {whose}'s, known to DNS")
    except OSError as error:
        return Finding("reach", "failed", f"{host}:{port}: {_in_words(error)}; want the {whose} to be reached")


def _unanswered(error: OSError, address: str, proxy: Proxy | None) -> Finding:
    """Why there is no answer: the hub's, or its proxy's refusal (RFC 9110, 9.3.6)."""
    said = str(error).removeprefix("Tunnel connection failed: ")
    if proxy is None or said == str(error):
        return Finding("no-answer", "failed", f"{address}: {_in_words(error)}; want the hub's answer")
    if said.startswith("407"):
        what = "another user and password" if proxy.user is not None else "--proxy http://USER:PASSWORD@HOST:PORT"
        return Finding("proxy-password", "failed", f"{proxy.address}: the proxy asks who calls; want {what}")
    return Finding(
        "proxy-refused",
        "failed",
        f"{proxy.address}: the proxy does not connect to {address} (status {said[:3]}); want whoever runs it to allow "
        "CONNECT to this host and port",
    )


def _in_words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens on this port, or a firewall rejects it"
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:.0f} s: a firewall drops the packets, or the machine is off"
    if isinstance(error, ConnectionResetError):
        return "connection closed at once: a firewall or proxy in between cuts it"
    return error.strerror or "connection failed"


def _unverified(error: ssl.SSLCertVerificationError, host: str, port: int, proxy: Proxy | None) -> Finding:
    """Why the hub's certificate is not taken, with what was shown instead."""
    shown = _shown(host, port, proxy)
    reason = error.verify_message
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return Finding("certificate-expired", "failed", f"{host}: its certificate has expired, or a clock is wrong")
    if error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
        return Finding("certificate-expired", "failed", f"{host}: its certificate is not valid yet: a clock is wrong")
    if error.verify_code in (62, 64):  # host name, address
        names = f"got one for {', '.join(_hosts(shown))}" if shown else "got one for another host"
        return Finding("certificate-host", "failed", f"{host}: {names}; want {host} among them")
    issuer = f"got a certificate by {shown.issuer.rfc4514_string()}" if shown else f"got another certificate ({reason})"
    return Finding(
        "certificate-authority",
        "failed",
        f"{host}: {issuer}; want one by the pilot's authority: another server, another pilot's hub, or a proxy that "
        "opens TLS stands in between",
    )


def _shown(host: str, port: int, proxy: Proxy | None) -> x509.Certificate | None:
    """The certificate that a server shows, trusted in nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = _connection(host, port, proxy, context)
    try:
        connection.connect()
        return x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True) or b"")
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _clock(said: str, now: datetime) -> Finding:
    try:
        there = parsedate_to_datetime(said)
    except ValueError:
        return Finding("clock", "warning", "clock: the hub says no time")
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    apart = abs(there - now)
    if apart > LARGEST_SKEW:
        return Finding("clock", "failed", f"clock: got {_span(apart)} apart from the hub's; want one time (NTP)")
    return Finding("clock", "ok", f"clock: {apart.total_seconds():.0f} s apart from the hub's")


def _fits(leaf: x509.Certificate, key: bytes) -> Finding:
    try:
        found = load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return Finding("key-mismatch", "failed", "hub's key: cannot be read; want it as it was written")
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.public_key() != leaf.public_key():
        return Finding(
            "key-mismatch", "failed", "hub's key: got one that is not the certificate's; want `statfed pilot renew`"
        )
    return Finding("key-mismatch", "ok", "hub's key: that of the certificate")


def _hosts(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _span(apart: timedelta) -> str:
    minutes = round(apart.total_seconds() / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"
