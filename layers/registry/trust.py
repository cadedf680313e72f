"""Whom a connection trusts, and who it says we are: `certs.d`, as Docker and containers have it.

For a registry, the folder HOST[:PORT] below a certs.d holds authorities to trust beside the usual ones (`*.crt`), and
our own certificate (`*.cert`) with its key of the same name (`*.key`).
"""

import os
import ssl
from collections.abc import Sequence

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from layers.data import dataclass
from layers.registry.errors import RegistryError


@dataclass(frozen=True, slots=True)
class Identity:
    """What is special about connections to one host."""

    authorities: tuple[str, ...] = ()
    client: tuple[str, str] | None = None
    """Files of our certificate and its key."""


def identity_of(host: str, folders: Sequence[str]) -> Identity:
    """What the folders have for `HOST[:PORT]`; the first certificate of ours that is found is taken.

    RegistryError for a certificate without its key: the registry would refuse us with no reason to be seen.
    """
    authorities: list[str] = []
    client: tuple[str, str] | None = None
    for folder in folders:
        place = os.path.join(folder, host)
        for name in _names(place):
            path, (stem, ending) = os.path.join(place, name), os.path.splitext(name)
            if ending == ".crt":
                authorities.append(path)
            elif ending == ".cert" and client is None:
                client = path, _key(os.path.join(place, f"{stem}.key"), path)
    return Identity(tuple(authorities), client)


class TrustingAdapter(HTTPAdapter):
    """An adapter whose connections trust the system's authorities and those of an identity, and show who we are.

    One context serves all its connections, in all threads. It is complete before the first of them: requests and
    urllib3 would load certificates for each connection, which OpenSSL does not endure while another thread is using it.
    """

    def __init__(self, identity: Identity, ca_file: str | None) -> None:
        """`ca_file` has authorities to trust in place of the system's and those that come with requests."""
        self._context = _context(identity, ca_file)
        super().__init__(pool_connections=8, pool_maxsize=16)

    def init_poolmanager(self, *arguments: object, **more: object) -> None:
        """Called by requests: the pool of direct connections."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **more)  # type: ignore[arg-type]  # handed on

    def proxy_manager_for(self, proxy: str, **more: object) -> object:
        """Called by requests: the pool of connections through a proxy."""
        return super().proxy_manager_for(proxy, ssl_context=self._context, **more)

    def cert_verify(self, conn: object, url: str, verify: object, cert: object) -> None:
        """Called by requests to have certificates loaded: they are."""


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RegistryError(f"{folder} cannot be read: {error.strerror}") from error


def _key(path: str, certificate: str) -> str:
    if not os.access(path, os.R_OK):
        raise RegistryError(f"{certificate} has no key that can be read", hint=f"its place is {path}")
    return path


def _context(identity: Identity, ca_file: str | None) -> ssl.SSLContext:
    path = ca_file or DEFAULT_CA_BUNDLE_PATH
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        for path in () if ca_file else (DEFAULT_CA_BUNDLE_PATH,):
            context.load_verify_locations(path)
        for path in identity.authorities:
            context.load_verify_locations(path)
        if identity.client:
            path, key = identity.client
            context.load_cert_chain(path, key, password=_refuse_password)
    except (ssl.SSLError, OSError) as error:
        raise RegistryError(f"{path} is not a file of certificates: {error.strerror or error}") from error
    return context


def _refuse_password() -> str:
    """For a key that is locked: OpenSSL would ask on the terminal."""
    raise RegistryError("a key of certs.d is locked by a password", hint="pybuild has nobody to ask for it")
