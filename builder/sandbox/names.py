"""The two files by which programs turn names into addresses. Steps get copies: they may write to them, for nothing."""

from collections.abc import Sequence

from builder.sandbox.process import Host


def hosts(hostname: str, more: Sequence[Host] = ()) -> bytes:
    """/etc/hosts of a step, with the lines that BuildKit writes: its own first, and the first one counts."""
    lines = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{host.address}\t{host.name}" for host in more]
    return "".join(f"{line}\n" for line in lines).encode()


def resolver(path: str = "/etc/resolv.conf") -> bytes:
    """The host's resolver configuration, as it is: a step on the host's network reaches the same local stub.

    A host without one gives an empty file, which to libc means a name server on this machine.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
