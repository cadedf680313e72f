"""Who vouches for registries and their users in tests: an authority for certificates, a server of tokens."""

import base64
import json
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from registries import PASSWORD, USER, Asked, FakeRegistry, Reply, basic


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of tests, in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        authority = cls(folder)
        _openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority",
            *("-out", authority.certificate, "-keyout", str(folder / "ca.key")),
        )
        return authority

    @property
    def certificate(self) -> str:
        return str(self.folder / "ca.crt")

    def sign(self, name: str) -> tuple[str, str]:
        """Files of a certificate for 127.0.0.1, signed by this authority, and of its key."""
        base = self.folder / name
        request, certificate, key = (f"{base}{ending}" for ending in (".csr", ".cert", ".key"))
        (self.folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        _openssl("req -newkey rsa:2048 -nodes", "-subj", f"/CN={name}", "-out", request, "-keyout", key)
        _openssl(
            "x509 -req -days 2 -CAcreateserial",
            *("-in", request, "-out", certificate, "-CA", self.certificate, "-CAkey", str(self.folder / "ca.key")),
            *("-extfile", str(self.folder / "names")),
        )
        return certificate, key


def _openssl(command: str, *more: str, data: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *command.split(), *more], check=True, capture_output=True, input=data).stdout


class TokenServer:
    """Gives tokens that docker-registry trusts, to USER for all that he asks, and notes who asked for what.

    As the distribution project's token specification has it: GET with a password, POST with an identity token.
    """

    def __init__(self, folder: Path) -> None:
        self.service = "tests"
        self.certificate, self._key = make_token_key(folder)
        self.lifetime = 300
        self.identity = "identity-of-ann"
        self.asked: list[Mapping[str, list[str]]] = []
        """Parameters of the questions that were answered by a token."""
        self._web = FakeRegistry()
        self._web.answer = self._answer  # type: ignore[method-assign]  # a server is a server
        self.realm = f"{self._web.url}/token"

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._web.__exit__(None, None, None)

    def _answer(self, asked: Asked) -> Reply:
        if asked.method == "POST":
            query = parse_qs(asked.body.decode())
            known = query.get("refresh_token") == [self.identity]
            query["scope"] = query.get("scope", [""])[0].split()
        else:
            query = parse_qs(urlsplit(asked.path).query)
            known = asked.authorization == basic(USER, PASSWORD)
        if not known:
            return Reply(401, body=b"{}")
        self.asked.append(query)
        token = {"token": self._token(query.get("scope", [])), "expires_in": self.lifetime}
        return Reply(body=json.dumps(token).encode())

    def _token(self, scopes: Sequence[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        der = ssl.PEM_cert_to_DER_cert(Path(self.certificate).read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims: dict[str, object] = {
            "iss": self.service,
            "sub": USER,
            "aud": self.service,
            "access": access,
            "jti": str(len(self.asked)),
        }
        claims |= {"iat": now, "nbf": now - 5, "exp": now + self.lifetime}
        text = b".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        return (text + b"." + _url64(_openssl("dgst -sha256 -sign", self._key, data=text))).decode()


def make_token_key(folder: Path) -> tuple[str, str]:
    """Files of a certificate that signs itself, and of its RSA key."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = str(folder / "token.crt"), str(folder / "token.key")
    _openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens", "-out", certificate, "-keyout", key)
    return certificate, key


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
