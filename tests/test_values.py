"""Values of instructions that are checked once they are expanded."""

import pytest

from builder.dockerfile.values import duration, exposed_ports, go_duration, stop_signal


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("30s", 30_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("500ms", 500_000_000),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1ns", 1),
        ("-1s", -1_000_000_000),
        ("+1s", 1_000_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
    ],
)
def test_a_duration_is_nanoseconds(text: str, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "-", "+", "5", "s", ".s", "1x", "1..5s", "1 s", "${n}s", "9" * 40 + "s", "300000h1h" * 9]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        duration(text)


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", ("80/tcp",)),
        ("80/TCP", ("80/tcp",)),
        ("53/udp", ("53/udp",)),
        ("1-3/sctp", ("1/sctp", "2/sctp", "3/sctp")),
        ("8080:80", ("80/tcp",)),
        ("127.0.0.1:8080:80", ("80/tcp",)),
        ("5-5", ("5/tcp",)),
        ("[::1]:8080:80/udp", ("80/udp",)),
        ("1.2.3.4::080", ("80/tcp",)),
        ("1-2:+80", ("80/tcp",)),
        ("0", ("0/tcp",)),
    ],
)
def test_a_word_of_expose_gives_ports_with_their_protocol(word: str, ports: tuple[str, ...]) -> None:
    assert exposed_ports(word) == ports


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("abc", "invalid containerPort: abc"),
        ("65536", "invalid containerPort: 65536"),
        ("", "invalid containerPort: "),
        ("1-", "invalid containerPort: 1-"),
        ("-1", "invalid containerPort: -1"),
        ("٣", "invalid containerPort"),
        ("3-1", "invalid range of ports: 3-1"),
        ("80/http", "invalid proto: http"),
        ("host:80", "invalid hostPort: host"),
        ("80-:80", "invalid hostPort: 80-"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("1-2:80-82", "invalid ranges specified"),
    ],
)
def test_what_is_no_port_is_refused(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exposed_ports(word)


@pytest.mark.parametrize("text", ["SIGTERM", "TERM", "sigkill", "9", "64", "SIGRTMIN+3", "RTMAX-14"])
def test_a_signal_stays_as_it_is_written(text: str) -> None:
    assert stop_signal(text) == text


@pytest.mark.parametrize("text", ["", "NOSIG", "0", "-1", "SIGRTMIN+16", "SIG"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid signal"):
        stop_signal(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (10_000_000_000, "10s"),
    ],
)
def test_durations_are_printed_as_go_prints_them(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text
