"""What a person at a terminal sees of a build."""

import io
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from rich.console import Console

from builder.events import Cached, Canceled, Entered, Event, Failed, Finished, Job, Output, Progress, Started, Warned
from builder.progress import open_listener, tty
from builder.progress.board import Board
from builder.progress.picture import final, live
from builder.progress.text import columns_of
from builder.progress.tty import painted

BASE = Job(1, "[build 1/3] FROM debian:12")
MAKE = Job(2, "[build 2/3] RUN make")
TEST = Job(3, "[build 3/3] RUN make test")


def board_of(*events: Event) -> Board:
    """A board that took note of the events."""
    board = Board()
    for event in events:
        board.apply(event)
    return board


def picture(*events: Event, now: float = 10.0, columns: int = 50, lines: int = 24) -> list[str]:
    """The live view after the events, of a build that began at 0."""
    return [line.text for line in live(board_of(*events), started=0.0, now=now, columns=columns, lines=lines)]


def outputs(job: Job, count: int) -> list[Event]:
    """So many lines of output of a job."""
    return [Output(job, f"line {number}\n".encode(), 1.0) for number in range(1, count + 1)]


def test_the_live_view_has_a_header_and_a_line_for_each_job() -> None:
    lines = picture(Cached(BASE), Started(MAKE, 8.8), now=10.0)

    assert lines == [
        "[+] Building 10.0s (1/2)",
        " => CACHED [build 1/3] FROM debian:12         0.0s",
        " => [build 2/3] RUN make                      1.2s",
    ]


def test_a_running_job_shows_its_last_six_lines_and_the_one_in_the_making() -> None:
    lines = picture(Started(MAKE, 0.0), *outputs(MAKE, 8), Output(MAKE, b"comp", 2.0))

    assert lines[2:] == [f" => => # line {number}" for number in range(4, 9)] + [" => => # comp"]


def test_a_finished_job_shows_no_output() -> None:
    lines = picture(Started(MAKE, 0.0), *outputs(MAKE, 8), Finished(MAKE, 2.5))

    assert lines[1:] == [" => [build 2/3] RUN make                      2.5s"]


def test_a_download_shows_its_bytes_until_it_is_complete() -> None:
    moving = (Started(BASE, 0.0), Progress(BASE, "layer", 12_300_000, 40_100_000))

    assert picture(*moving)[2:] == [" => => layer 12.3MB / 40.1MB"]
    assert picture(*moving, Progress(BASE, "layer", 40_100_000, 40_100_000))[2:] == []


def test_the_live_view_never_exceeds_its_lines() -> None:
    jobs = [Job(number, f"job {number}") for number in range(1, 60)]
    events: list[Event] = [event for job in jobs[:50] for event in (Started(job, 0.0), Finished(job, job.number))]
    events += [event for job in jobs[50:] for event in (Started(job, 60.0), *outputs(job, 9))]

    for height in range(1, 70):
        assert len(picture(*events, lines=height, now=70.0)) <= height


def test_in_a_low_terminal_old_jobs_give_way_to_what_runs() -> None:
    events = (Cached(BASE), Started(MAKE, 0.0), Finished(MAKE, 5.0), Started(TEST, 5.0), *outputs(TEST, 6))

    lines = picture(*events, lines=9)

    assert [line.split("  ")[0] for line in lines[1:4]] == [
        " => [build 2/3] RUN make",
        " => [build 3/3] RUN make test",
        " => => # line 1",
    ]
    assert len(lines) == 9


@pytest.mark.parametrize("columns", [1, 5, 20, 33, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    job = Job(4, "[build 4/4] RUN echo 世界世界世界世界世界世界世界世界 é́ done")
    events = (Cached(BASE), Started(job, 0.0), *outputs(job, 3), Output(job, "世界\t\n".encode() * 9, 1.0))

    assert all(columns_of(line) <= columns for line in picture(*events, columns=columns))


def test_twenty_columns_are_enough_for_a_title_and_a_time() -> None:
    assert picture(Started(MAKE, 0.0), columns=20)[1] == " => [build 2/… 10.0s"


def test_the_list_at_the_end_names_every_job() -> None:
    board = board_of(Cached(BASE), Started(MAKE, 0.0), Finished(MAKE, 2.0), Warned("careful"))

    lines = [line.text for line in final(board, started=0.0, now=2.0, columns=40)]

    assert lines == [
        "[+] Building 2.0s (2/2) FINISHED",
        " => CACHED [build 1/3] FROM debian… 0.0s",
        " => [build 2/3] RUN make            2.0s",
        "WARNING: careful",
    ]


def test_a_failed_job_shows_all_of_its_last_output() -> None:
    board = board_of(Started(MAKE, 0.0), *outputs(MAKE, 40), Failed(MAKE, 3.0, "ended with 2"))

    lines = [line.text for line in final(board, started=0.0, now=3.0, columns=40)]

    assert lines[:2] == ["[+] Building 3.0s (1/1)", " => ERROR [build 2/3] RUN make      3.0s"]
    assert lines[2:4] == ["------", " > [build 2/3] RUN make:"]
    assert lines[4:-1] == [f"1.000 line {number}" for number in range(1, 41)]


def test_a_job_that_begins_and_is_then_found_in_the_cache_is_cached() -> None:
    assert "CACHED" in picture(Started(MAKE, 0.0), Cached(MAKE), Finished(MAKE, 1.0))[1]


def test_what_ends_after_the_first_failure_was_canceled_by_it() -> None:
    board = board_of(
        *(Started(MAKE, 0.0), Started(TEST, 0.0), *outputs(TEST, 3)),
        *(Failed(MAKE, 3.0, "ended with 2"), Canceled(TEST, 3.1)),
    )

    lines = [line.text for line in final(board, started=0.0, now=3.1, columns=60)]

    assert [line.split()[1] for line in lines[1:]] == ["ERROR", "CANCELED"]


def test_an_interrupted_job_is_called_so() -> None:
    lines = [line.text for line in final(board_of(Started(MAKE, 0.0)), started=0.0, now=3.0, columns=40)]

    assert lines[1] == " => CANCELED [build 2/3] RUN make   3.0s"


def test_the_painted_picture_fits_the_console_line_by_line() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=30, height=8, force_terminal=True, color_system=None, _environ={})
    board = board_of(Cached(BASE), Started(MAKE, 0.0), Output(MAKE, b"x" * 100 + b"\n[bold]no markup[/]\n", 1.0))

    console.print(painted(live(board, started=0.0, now=1.0, columns=29, lines=7)))

    assert stream.getvalue().splitlines() == [
        "[+] Building 1.0s (1/2)",
        " => CACHED [build 1/3] … 0.0s",
        " => [build 2/3] RUN make 1.0s",
        " => => # xxxxxxxxxxxxxxxxxxx…",
        " => => # [bold]no markup[/]",
    ]


def test_the_live_view_gives_way_to_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    drawn, stream = threading.Event(), io.StringIO()

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            if "=> =>" in text:
                drawn.set()
            return stream.write(text)

    with open_listener("tty", Terminal(), lambda: 1.0) as listener:
        listener(Entered())
        listener(Started(MAKE, 0.0))
        listener(Output(MAKE, b"hello\n", 0.5))
        assert drawn.wait(60)
        listener(Finished(MAKE, 1.0))

    assert stream.getvalue().endswith("\n => [build 2/3] RUN make" + " " * 52 + "1.0s\n")


def test_a_terminal_that_goes_away_does_not_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "PATIENCE", 0.0)
    asked = threading.Event()

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            asked.set()
            raise OSError(5, "Input/output error")

    with open_listener("tty", Gone(), lambda: 1.0) as listener:
        listener(Started(MAKE, 0.0))
        assert asked.wait(60)
        listener(Finished(MAKE, 1.0))


@pytest.mark.parametrize("mode", ["tty", "plain", "quiet", "rawjson"])
def test_a_cached_build_imports_no_rich_and_starts_no_thread(mode: str) -> None:
    script = textwrap.dedent(f"""
        import io, sys, threading
        from builder.events import Cached, Finished, Job, Started
        from builder.progress import open_listener
        stream = io.StringIO()
        with open_listener({mode!r}, stream, lambda: 0.0) as listener:
            for number in range(1, 5):
                listener(Cached(Job(number, "step")))
            assert threading.active_count() == 1
        assert stream.getvalue().lower().count("cached") == (0 if {mode!r} == "quiet" else 4)
        assert not [name for name in sys.modules if name.partition(".")[0] == "rich"]
    """)

    subprocess.run([sys.executable, "-c", script], check=True, cwd=os.path.dirname(os.path.dirname(__file__)))
