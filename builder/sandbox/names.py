"""The two files by which programs turn names into addresses. Steps get copies: they may write to them, for nothing."""


def hosts(hostname: str) -> bytes:
    """/etc/hosts of a step, with the lines that BuildKit writes."""
    return f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n".encode()


def resolver(path: str = "/etc/resolv.conf") -> bytes:
    """The host's resolver configuration, as it is: a step on the host's network reaches the same local stub.

    A host without one gives an empty file, which to libc means a name server on this machine.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
