"""What proves to a registry who asks."""

import base64

from layers.data import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """What is at hand for one registry; all empty is anonymous."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)
    """An identity token, which a token server takes in place of a password (OAuth2: a refresh token)."""
    token: str = field(default="", repr=False)
    """To be sent as a bearer token as it is (`registrytoken`)."""
    trouble: str = ""
    """Why there is nothing, although something was configured."""

    @property
    def basic(self) -> str:
        """The Authorization header of RFC 7617; empty without a password."""
        if not self.username and not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def is_anonymous(self) -> bool:
        """Whether there is nothing at all to prove anything with."""
        return not (self.username or self.password or self.identity or self.token)
