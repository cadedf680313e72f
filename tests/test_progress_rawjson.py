"""What programs see of a build: BuildKit's SolveStatus, a JSON object in each line."""

import base64
import json
from io import StringIO
from typing import Any

import pytest
from images import Project

from builder.errors import Location
from builder.events import Cached, Canceled, Event, Failed, Finished, Job, Output, Progress, Started, Warned
from builder.progress import open_listener

MAKE = Job(5, "[build 2/4] RUN make")


def told(*events: Event) -> list[dict[str, Any]]:
    """The lines for events on a clock that stands at 100."""
    stream = StringIO()
    with open_listener("rawjson", stream, lambda: 100.0) as listener:
        for event in events:
            listener(event)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_step_is_a_vertex_that_its_output_names() -> None:
    start, log, end = told(Started(MAKE, 100), Output(MAKE, b"cc\xff\n", 100.5), Finished(MAKE, 101.25))

    (begun,), (done,) = start["vertexes"], end["vertexes"]
    (line,) = log["logs"]
    assert begun["name"] == MAKE.title
    assert "completed" not in begun
    assert done == begun | {"completed": done["completed"]}
    assert line["vertex"] == begun["digest"]
    assert base64.b64decode(line["data"]) == b"cc\xff\n"
    assert begun["started"] < line["timestamp"] < done["completed"]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Cached(MAKE), {"cached": True}),
        (Failed(MAKE, 101, "it ended with 2"), {"error": "it ended with 2"}),
        (Canceled(MAKE, 101), {"error": "context canceled"}),
    ],
)
def test_a_vertex_tells_how_it_ended(event: Event, said: dict[str, Any]) -> None:
    (vertex,) = told(Started(MAKE, 100), event)[-1]["vertexes"]

    assert vertex.items() >= said.items()
    assert vertex["completed"] >= vertex["started"]


def test_what_is_moved_is_a_status() -> None:
    first, last = (line["statuses"][0] for line in told(Progress(MAKE, "blob", 3, 7), Progress(MAKE, "blob", 7, 7)))

    assert (first["id"], first["current"], first["total"], "completed" in first) == ("blob", 3, 7, False)
    assert (last["current"], last["started"], "completed" in last) == (7, first["started"], True)


def test_a_warning_has_its_lines() -> None:
    (line,) = told(Warned("'run' is small", Location("Dockerfile", 3, 4, ("FROM x",)), "Casing"))

    (warning,) = line["warnings"]
    assert base64.b64decode(warning["short"]) == b"Casing: 'run' is small (line 3)"
    assert warning["range"] == [{"start": {"line": 3}, "end": {"line": 4}}]
    assert warning["sourceInfo"]["filename"] == "Dockerfile"


@pytest.mark.kernel
def test_a_variable_names_the_kind_of_progress(project: Project) -> None:
    project.write({"Dockerfile": "FROM scratch\n"})

    by_variable = project.build("--progress=auto", BUILDKIT_PROGRESS="rawjson")
    by_option = project.build(BUILDKIT_PROGRESS="rawjson")
    wrong = project.build("--progress=auto", BUILDKIT_PROGRESS="loud")

    assert all(json.loads(line) for line in by_variable.err.splitlines())
    assert "{" not in by_option.err
    assert (wrong.status, "BUILDKIT_PROGRESS is 'loud'" in wrong.err) == (2, True)
