"""Whether a registry may send us to ask for a token where it says."""

import ipaddress
import socket
from urllib.parse import urlsplit

from layers.registry.errors import RegistryError


def check_realm(realm: str, origin: str) -> None:
    """RegistryError if the registry sends us where it has no business to (a request forged through us).

    It may not send a login out of TLS, and from the outside not into a private network or to this machine.
    """
    try:
        there, here = urlsplit(realm), urlsplit(origin)
        host = there.hostname or ""
    except ValueError:
        host = ""
    if not host or there.scheme not in {"http", "https"}:
        raise RegistryError(f"{urlsplit(origin).netloc} asks for a token, but from {realm[:200]!r}, which is no URL")
    if here.scheme == "https" and there.scheme == "http":
        raise RegistryError(f"{here.netloc} asks to send the login to {there.netloc} without TLS")
    if host == here.hostname:
        return
    reach = _reach(host)
    if reach in {"public", _reach(here.hostname or "")}:
        return
    if (reach, _reach(here.hostname or "")) == ("private", "loopback"):
        # A registry behind a tunnel that ends on this machine.
        return
    raise RegistryError(f"{here.netloc} asks for a token from {there.netloc}, which is a {reach} address")


def _reach(host: str) -> str:
    """From where a host can be reached: public, private, loopback or local; the least public of its addresses.

    A name that cannot be looked up counts as public: behind a proxy, only the proxy may know names.
    """
    try:
        found = {
            str(address[4][0]).partition("%")[0].removeprefix("::ffff:") for address in socket.getaddrinfo(host, None)
        }
    except (OSError, UnicodeError):
        return "public"
    addresses = [ipaddress.ip_address(text) for text in found]
    if any(address.is_loopback for address in addresses):
        return "loopback"
    if any(address.is_link_local for address in addresses):
        return "local"
    return "public" if all(address.is_global for address in addresses) else "private"
