"""Values that are checked once their variables are known: durations, sizes, ports, signals.

Each function takes the expanded text and raises ValueError with a message for people; the caller knows the line.
"""

import contextlib
import re

from builder.dockerfile.texts import quoted

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LONGEST = 2**63 - 1
"""Docker keeps durations in 64 bits: 292 years."""

_SIGNAL_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS IOT CLD POLL RTMIN RTMAX"
)
_SIGNALS = frozenset(_SIGNAL_NAMES.split(" ")).union(
    (f"RTMIN+{number}" for number in range(1, 16)), (f"RTMAX-{number}" for number in range(1, 15))
)
_SIZE = r"(?ai)(\d{1,18}(?:\.\d{1,18})?) ?([kmgtp]?)i?b?"
_LARGEST_SIZE = 1 << 62
_PROTOCOLS = ("tcp", "udp", "sctp")
_LAST_PORT = 65535


def duration(text: str) -> int:
    """Nanoseconds of a duration as Go writes it: `1h2m3.5s`, `300ms`, `0`."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    total = 0
    while rest:
        nanoseconds, rest = _duration_part(rest, text)
        total += nanoseconds
    if not text.strip("+-") or total > _LONGEST:
        raise _bad_duration(text)
    return sign * total


def go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `300ms`, `0s`."""
    for unit in ("ns", "µs", "ms"):
        if 0 < nanoseconds < _UNITS[unit] * 1000:
            return f"{_decimal(nanoseconds, _UNITS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{_decimal(rest, _UNITS['s'])}s"


def _decimal(number: int, unit: int) -> str:
    """A number of units, without zeros at its end."""
    whole, fraction = divmod(number, unit)
    return f"{whole}.{fraction:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".")


def _duration_part(rest: str, text: str) -> tuple[int, str]:
    """The nanoseconds of the first number with its unit, and what follows."""
    number, rest = _leading(rest, "0123456789.")
    whole, _, fraction = number.partition(".")
    unit, rest = _until(rest, "0123456789.")
    if len(number) > 30 or not (whole or fraction) or "." in fraction or unit not in _UNITS:
        raise _bad_duration(text)
    scale = _UNITS[unit]
    return int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction), rest


def _bad_duration(text: str) -> ValueError:
    return ValueError(f"invalid duration {quoted(text)}: write a number with a unit, such as 30s, 1m30s or 500ms")


def _leading(text: str, characters: str) -> tuple[str, str]:
    rest = text.lstrip(characters)
    return text[: len(text) - len(rest)], rest


def _until(text: str, characters: str) -> tuple[str, str]:
    end = next((at for at, character in enumerate(text) if character in characters), len(text))
    return text[:end], text[end:]


def size(text: str) -> int:
    """Bytes of a size as docker has it: `512`, `64m`, `1.5g`, `10 MiB`; units are powers of 1024."""
    match = re.fullmatch(_SIZE, text)
    if match:
        whole, _, fraction = match[1].partition(".")
        unit = 1024 ** " kmgtp".index(match[2].lower() or " ")
        number: int = int(whole) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        if number <= _LARGEST_SIZE:
            return number
    raise ValueError(f"invalid size {quoted(text)}: write a number of bytes, or such as 64m or 1g")


def exposed_ports(word: str) -> tuple[str, ...]:
    """The ports of one word of EXPOSE as `port/protocol`; a range gives each of its ports.

    An address and a port of the host before colons mean nothing in an image: they are read and dropped.
    """
    before, _, container = word.rpartition(":")
    address, _, host = before.rpartition(":")
    container, slash, protocol = container.partition("/")
    protocol = protocol.lower() if slash and protocol else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if address and not _is_address(address.removeprefix("[").removesuffix("]")):
        raise ValueError(f"invalid IP address: {address}")
    ports = _range(container, "containerPort")
    if host and len(_range(host, "hostPort")) != len(ports) > 1:
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return tuple(f"{port}/{protocol}" for port in ports)


def _range(text: str, what: str) -> range:
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first]
    if not all(re.fullmatch(r"\+?[0-9]+", number) and int(number) <= _LAST_PORT for number in numbers):
        raise ValueError(f"invalid {what}: {text}")
    low, high = int(numbers[0]), int(numbers[-1])
    if high < low:
        raise ValueError(f"invalid range of ports: {text}")
    return range(low, high + 1)


def _is_address(text: str) -> bool:
    import socket  # few images name an address, and it takes long to import

    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            return bool(socket.inet_pton(family, text))
    return False


def stop_signal(text: str) -> str:
    """The signal as it was given, once it is known to be one: any number but 0, or a name with or without SIG."""
    if text.isascii() and text.isdigit() and text.strip("0"):
        return text
    if text.upper().removeprefix("SIG") not in _SIGNALS:
        raise ValueError(f"invalid signal: {text}")
    return text
