"""How a registry can fail a person.

RegistryError           anything else: a message that says all
  UnreachableError      nobody answers there, or not in the language expected; another mirror may
  UntrustedError        the certificate does not prove that the host is who it says
  WrongBytesError       a blob is not the one of its digest
  NotFoundError         not there, or not for these credentials: registries do not tell which
  TransientError        worth another try
    DroppedError        the connection broke off, or fell silent
    BusyError           429, or a fault of the server
"""

from layers.errors import ImageError


class RegistryError(ImageError):
    """A registry, or what stands between, does not give what was asked for."""


class UnreachableError(RegistryError):
    """No connection came about; trying again at once would change nothing."""


class UntrustedError(RegistryError):
    """The other side's certificate is not valid for its name, or signed by nobody known."""


class WrongBytesError(RegistryError):
    """What came is not what was asked for, and no beginning of it either."""


class NotFoundError(RegistryError):
    """There is no such repository, tag or blob, or the access to it is refused."""


class TransientError(RegistryError):
    """What may work at the next try."""

    wait = 0.0
    """Seconds that the server asks to wait for."""
    final = False
    """Whether it has been tried often enough."""


class DroppedError(TransientError):
    """The connection ended, or was silent for too long, before the answer was complete."""


class BusyError(TransientError):
    """The server answered that it cannot answer now."""

    def __init__(self, message: str, *, hint: str = "", wait: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


class LostUploadError(TransientError):
    """An upload has to begin again: the registry forgot it, or did not take it this way."""
