"""What pipes and logs see of a build."""

import io
import threading

import pytest

from builder.errors import Location
from builder.events import Cached, Event, Failed, Finished, Job, Output, Progress, Started, Warned
from builder.progress import open_listener
from builder.progress.choose import Mode
from builder.progress.text import LONGEST_LINE, LineBuffer, amount, clean

MAKE = Job(5, "[build 2/4] RUN make")
BASE = Job(1, "[base 1/4] FROM debian:12")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*events: Event, mode: Mode = "plain") -> str:
    """What a listener writes of these events, the context left at the end."""
    stream = io.StringIO()
    with open_listener(mode, stream, Clock()) as listener:
        for event in events:
            listener(event)
    return stream.getvalue()


def test_a_step_shows_its_title_output_and_time() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b"cc -c a.c\n", 100.312), Finished(MAKE, 101.2))

    assert text == "#5 [build 2/4] RUN make\n#5 0.312 cc -c a.c\n#5 DONE 1.2s\n"


def test_a_cached_step_takes_two_lines() -> None:
    assert shown(Cached(MAKE)) == "#5 [build 2/4] RUN make\n#5 CACHED\n"


def test_a_step_that_begins_and_is_then_found_in_the_cache_is_cached() -> None:
    text = shown(Started(MAKE, 100), Cached(MAKE), Finished(MAKE, 101))

    assert text.splitlines()[1:] == ["#5 CACHED"]


def test_a_failed_step_ends_with_its_error() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b"no rule", 100.5), Failed(MAKE, 100.6, "the command ended with 2"))

    assert text.splitlines()[1:3] == ["#5 0.600 no rule", "#5 ERROR: the command ended with 2"]


def test_the_end_of_a_failed_step_is_told_once_more_at_the_end() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b"no rule\n", 100.5), Failed(MAKE, 100.6, "the command ended with 2"))

    assert text.splitlines()[-4:] == ["------", f" > {MAKE.title}:", " no rule", "------"]


def test_an_empty_line_stands_before_each_title_but_the_first() -> None:
    assert shown(Cached(BASE), Cached(MAKE)).splitlines() == [
        "#1 [base 1/4] FROM debian:12",
        "#1 CACHED",
        "",
        "#5 [build 2/4] RUN make",
        "#5 CACHED",
    ]


def test_a_line_is_written_when_it_is_complete() -> None:
    stream = io.StringIO()

    with open_listener("plain", stream, Clock()) as listener:
        listener(Started(MAKE, 100))
        listener(Output(MAKE, b"half a ", 101))
        before = stream.getvalue()
        listener(Output(MAKE, b"line\n", 102))
        after = stream.getvalue()

    assert "half" not in before
    assert "#5 2.000 half a line\n" in after


def test_an_unfinished_line_is_not_lost_when_the_build_is_interrupted() -> None:
    assert shown(Started(MAKE, 100), Output(MAKE, b"last words", 100)).endswith("#5 0.000 last words\n")


def test_a_character_cut_between_two_reads_is_whole() -> None:
    first, second = "käse\n".encode()[:2], "käse\n".encode()[2:]

    text = shown(Started(MAKE, 100), Output(MAKE, first, 100), Output(MAKE, second, 100))

    assert text.endswith(" käse\n")


def test_a_progress_bar_leaves_its_last_state() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b" 10%\r 50%\r", 100), Output(MAKE, b"100%\r\n", 101))

    assert text.splitlines()[1:] == ["#5 1.000 100%"]


def test_a_command_cannot_reach_the_terminal() -> None:
    attack = b"\x1b[2J\x1b]0;title\x07\x1bPq#0\x1b\\\x1b[31mred\x1b[0m\x08\x9b1m\xc2\x9b5mend\xe2\x80\xae\n"

    text = shown(Started(MAKE, 100), Output(MAKE, attack, 100))

    assert text.splitlines()[1] == "#5 0.000 red\ufffd\ufffd1mend\ufffd"


def test_a_control_string_without_an_end_stops_at_the_line() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b"\x1b]0;never ends\nnext\n", 100))

    assert text.splitlines()[-1] == "#5 0.000 next"


def test_a_title_of_several_lines_is_one_line() -> None:
    job = Job(2, "[1/1] RUN <<EOF\n  echo \x1b[7mhi\nEOF")

    assert shown(Cached(job)).splitlines()[0] == "#2 [1/1] RUN <<EOF echo hi EOF"


def test_downloads_are_told_at_their_start_now_and_then_and_at_their_end() -> None:
    clock, stream, blob = Clock(), io.StringIO(), "sha256:" + "0123456789abcdef" * 4

    with open_listener("plain", stream, clock) as listener:
        listener(Started(BASE, 100))
        for second in range(8):
            clock.now = 100.0 + second
            listener(Progress(BASE, blob, second * 1_000_000, 7_000_000))
        listener(Progress(BASE, blob, 7_000_000, 7_000_000))

    assert stream.getvalue().splitlines()[1:] == [
        "#1 sha256:0123456789ab 0B / 7.0MB",
        "#1 sha256:0123456789ab 5.0MB / 7.0MB",
        "#1 sha256:0123456789ab 7.0MB / 7.0MB",
    ]


def test_a_warning_names_its_line() -> None:
    assert shown(Warned("ARG comes too late", Location("Dockerfile", 3, 3))) == (
        "WARNING: ARG comes too late (Dockerfile:3)\n"
    )


def test_lines_of_several_threads_do_not_mix() -> None:
    stream = io.StringIO()
    jobs = [Job(number, f"job {number}") for number in range(1, 5)]

    with open_listener("plain", stream, Clock()) as listener:

        def speak(job: Job) -> None:
            for _ in range(200):
                listener(Output(job, b"word " * 10 + b"\n", 100))

        threads = [threading.Thread(target=speak, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = [line for line in stream.getvalue().splitlines() if "word" in line]
    assert len(lines) == 800
    assert {line.partition(" ")[2] for line in lines} == {"0.000 " + ("word " * 10).rstrip()}


def test_a_lost_reader_does_not_end_the_build() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with open_listener("plain", Gone(), Clock()) as listener:
        listener(Cached(BASE))
        listener(Cached(MAKE))


def test_a_poor_encoding_does_not_end_the_build() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    with open_listener("plain", stream, Clock()) as listener:
        listener(Cached(Job(1, "RUN echo käse \udcff")))

    assert raw.getvalue() == b"#1 RUN echo k?se ?\n#1 CACHED\n"


def test_auto_is_plain_where_there_is_no_terminal() -> None:
    assert shown(Cached(MAKE), mode="auto").startswith("#5 ")


def test_quiet_says_nothing_of_a_build_that_succeeds() -> None:
    events = (Started(MAKE, 100), Output(MAKE, b"much\n", 100), Finished(MAKE, 101), Warned("careful"))

    assert shown(*events, mode="quiet") == ""


def test_quiet_shows_what_a_failed_command_printed() -> None:
    text = shown(Started(MAKE, 100), Output(MAKE, b"no rule\n", 100.5), Failed(MAKE, 101, "ended with 2"), mode="quiet")

    assert text == "------\n > [build 2/4] RUN make:\n0.500 no rule\n------\n"


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    buffer = LineBuffer()

    lines = [line for _ in range(64) for line in buffer.feed(b"x" * 1024)]

    assert sum(map(len, lines)) >= 64 * 1024 - LONGEST_LINE - 1024


def test_a_line_end_in_two_reads_is_one_line_end() -> None:
    buffer = LineBuffer()

    assert buffer.feed(b"one\r") + buffer.feed(b"\ntwo\r\n") == ["one", "two"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.0kB"), (999_949, "999.9kB"), (999_960, "1.0MB"), (12_345_678_901, "12.3GB")],
)
def test_amounts_of_bytes_are_decimal(count: int, text: str) -> None:
    assert amount(count) == text


def test_ordinary_text_stays_as_it_is() -> None:
    assert clean("Grüße, 世界\t✓") == "Grüße, 世界\t✓"
