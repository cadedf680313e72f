"""Requests to repositories, each with the access that its registry asks for."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from layers.registry.answer import Answer
from layers.registry.auth import Access, Warn
from layers.registry.body import Body
from layers.registry.connection import Connection, is_same_server
from layers.registry.credentials import Logins
from layers.registry.errors import DroppedError, NotFoundError, RegistryError, UnreachableError
from layers.registry.places import Endpoint
from layers.registry.settings import RegistrySettings


class Dialogue:
    """What one run says to its registries; threads may share it. Remembers tokens."""

    def __init__(self, settings: RegistrySettings, warn: Warn) -> None:
        self._connection = Connection(settings)
        self.places = self._connection.places
        self._logins = Logins(settings)
        self._warn = warn
        self._origins: dict[str, str] = {}
        self._accesses: dict[tuple[Endpoint, bool, str], Access] = {}

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def ask(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        push: bool = False,
        mount_from: str = "",
        alone: bool = False,
    ) -> Answer:
        """One request to a repository: `path` is below it, or the URL that the registry gave for something.

        The answer may have any status that does not mean "try again". One that asks for access gets it, and the request
        is sent once more. `push` asks for the right to write; `mount_from`, also for that to read another repository.
        """
        access = self.access(endpoint, push=push, mount_from=mount_from)
        origin = self._origin(endpoint.host)
        url = path if path.startswith(("http://", "https://")) else f"{origin}/v2/{endpoint.repository}/{path}"
        ours = is_same_server(url, origin)
        sent = access.fresh() if ours else ""
        answer = self._connection.ask(method, url, authorization=sent, headers=headers, body=body, alone=alone)
        if not (ours and answer.status == 401 and answer.url == url):
            return answer
        renewed = access.renew(answer.headers.get("WWW-Authenticate", ""), sent)
        if not renewed or renewed == sent:
            return answer
        answer.close()
        return self._connection.ask(method, url, authorization=renewed, headers=headers, body=body, alone=alone)

    def access(self, endpoint: Endpoint, *, push: bool = False, mount_from: str = "") -> Access:
        """The one access to a repository for reading, or for pushing to it."""
        key = (endpoint, push, mount_from)
        if key not in self._accesses:
            scopes = [f"repository:{endpoint.repository}:{'pull,push' if push else 'pull'}"]
            if mount_from:
                scopes.append(f"repository:{mount_from}:pull")
            # Two threads may both come here; setdefault lets one of the two objects win for good.
            access = Access(
                self._connection,
                host=endpoint.host,
                origin=self._origin(endpoint.host),
                scopes=scopes,
                login=lambda: self._logins.of(endpoint.host, endpoint.repository),
                warn=self._warn,
                may_be_anonymous=not push,
            )
            self._accesses.setdefault(key, access)
        return self._accesses[key]

    def greet(self, host: str) -> tuple[Answer, Access]:
        """Ask a registry whether it knows us (the specification's "API version check"), with the login for it."""
        origin = self._origin(host)
        access = Access(
            self._connection,
            host=host,
            origin=origin,
            scopes=(),
            login=lambda: self._logins.of(host),
            warn=self._warn,
            may_be_anonymous=False,
        )
        answer = self._connection.get(f"{origin}/v2/")
        if answer.status == 401 and (header := access.renew(answer.headers.get("WWW-Authenticate", ""), "")):
            answer.close()
            answer = self._connection.get(f"{origin}/v2/", authorization=header)
        return answer, access

    def refusal(
        self, answer: Answer, endpoint: Endpoint, what: str, *, push: bool = False, fault: str = ""
    ) -> RegistryError:
        """The error for an answer that is not what was asked for; `fault` are its words, if they have been read."""
        fault = f"{answer.host} answers {fault or answer.fault()}"
        host = endpoint.host
        if urlsplit(answer.url).netloc != urlsplit(self._origin(host)).netloc:
            # A store of blobs to which the registry redirected: its "no" says nothing about logins.
            return NotFoundError(f"{what}: {fault}", hint=f"{host} sent us there")
        trouble = self.access(endpoint, push=push).trouble
        if answer.status in {401, 403}:
            hint = trouble or f"if it is private, log in to it: pybuild login {host}"
            refused = "no permission to push" if push else "not found, or no access to it"
            return NotFoundError(f"{what}: {refused}: {fault}", hint=hint)
        if answer.status == 404:
            return NotFoundError(
                f"{what}: not found, or no access to it: {fault}", hint=trouble or "check the name and the tag"
            )
        return RegistryError(f"{what}: {fault}", hint="" if push else f"is {host} a registry?")

    def _origin(self, host: str) -> str:
        """`https://HOST`; where plain http is allowed, whichever the registry speaks."""
        if host not in self._origins:
            *secure, last = self.places.origins(host)
            self._origins[host] = next((origin for origin in secure if self._answers(origin)), last)
        return self._origins[host]

    def _answers(self, origin: str) -> bool:
        try:
            self._connection.get(f"{origin}/v2/").close()
        except (UnreachableError, DroppedError):
            return False
        return True
