"""Images of one Dockerfile that begins with busybox: what tests of RUN build, and what they look at."""

from images import ImageRead, Project, Result

BOMB = (
    "bomb() {{ if [ $1 -gt 0 ]; then bomb $(($1-1)) & bomb $(($1-1)) & fi; exec sleep {0}; }};"
    " bomb 6 & i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7"
)
"""A fork bomb that ends at 127 processes, should nothing else end it: tests run on machines that others need."""

_MADE_FOR_THE_FIRST_RUN = {"dev", "proc", "sys"}


def build(project: Project, text: str, *options: str, **variables: str) -> ImageRead:
    """Build, and succeed."""
    project.write({"Dockerfile": f"FROM busybox\n{text}"})
    project.built(*options, stdin=b"", **variables)
    return project.image()


def fail(project: Project, text: str, *options: str) -> Result:
    """Build, and fail."""
    project.write({"Dockerfile": f"FROM busybox\n{text}"})
    result = project.build(*options)
    assert result.status, result.err
    return result


def paths(image: ImageRead, layer: int = -1) -> set[str]:
    """What is in a layer, beside the mount points that the first RUN of an image adds to it."""
    return {item.path for item in image.layers[layer]} - _MADE_FOR_THE_FIRST_RUN


def outcome(result: Result, step: str) -> str:
    """How the one step ended that has these words in its title."""
    (found,) = [outcome for title, outcome in result.steps.items() if step in title]
    return found
