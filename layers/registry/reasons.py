"""Why no answer came: the errors of requests, urllib3, ssl and sockets, told as facts."""

import ssl
from collections.abc import Iterator

import requests
import urllib3

from layers.registry.errors import DroppedError, RegistryError, UnreachableError, UntrustedError

_LONGEST = 300
_REFUSALS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants to see a certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it wants to see a certificate, or another one",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not know our certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed our certificate",
}
"""The alerts by which a server refuses a client's certificate, or the lack of one (RFC 8446, section 6.2)."""


def no_answer(host: str, error: Exception) -> RegistryError:
    """The error of a request that got no answer, by what is at the bottom of it."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLError):
        return _tls(host, cause)
    if isinstance(error, requests.exceptions.ProxyError):
        return UnreachableError(
            f"the proxy on the way to {host} does not answer: {reason(error)}", hint="look at HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(error, requests.ReadTimeout):
        return DroppedError(f"{host} does not answer: it was silent for too long")
    if _never_connected(error):
        return UnreachableError(
            f"{host} does not answer: {reason(error)}", hint="check the name of the registry, and the network"
        )
    if isinstance(error, (requests.ConnectionError, urllib3.exceptions.HTTPError)):
        return DroppedError(f"{host} broke off: {reason(error)}")
    return RegistryError(f"{host} cannot be asked: {reason(error)}")


def _tls(host: str, cause: ssl.SSLError) -> RegistryError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UntrustedError(
            f"the certificate of {host} is not trusted: {cause.verify_message}",
            hint=f"if you know the host, --insecure-registry {host} goes without",
        )
    if cause.reason in _REFUSALS:
        return UntrustedError(
            f"{host} does not trust us: {_REFUSALS[cause.reason]}",
            hint=f"client.cert and client.key in certs.d/{host} show who we are (docs/registries.md)",
        )
    return UnreachableError(
        f"{host} does not speak TLS as expected: {cause.reason or cause}",
        hint=f"if it is a registry of plain http, say --insecure-registry {host}",
    )


def _never_connected(error: BaseException) -> bool:
    """Whether no connection came about, so that a mirror is a better next try than the same host."""
    return any(
        isinstance(link, (requests.ConnectTimeout, urllib3.exceptions.NewConnectionError)) for link in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made of, outermost first; urllib3 keeps some causes in attributes or arguments only."""
    link: BaseException | None = error
    while link is not None:
        yield link
        places = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        link = next((inner for inner in places if isinstance(inner, BaseException)), None)


def _root(error: BaseException) -> BaseException:
    *_, last = _chain(error)
    return last


def reason(error: BaseException) -> str:
    """The words of the innermost error, which is the one that names the fact."""
    cause = _root(error)
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return text[:_LONGEST].lower() if text[1:2].islower() else text[:_LONGEST]
