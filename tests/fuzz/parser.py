"""Any bytes are a Dockerfile, or a DockerfileError that knows its place: reading, parsing, evaluating and checking.

python tests/fuzz/parser.py -max_total_time=600 -timeout=10
"""

import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

_TESTDATA = Path(__file__).resolve().parents[2] / "testdata"


def load() -> Callable[[bytes], None]:
    """Import what is fuzzed; imports before this would not be instrumented."""
    from builder.checks.ruleset import find_all
    from builder.checks.settings import read_settings
    from builder.context.named import NamedContexts
    from builder.dockerfile.frontend import refuse_foreign
    from builder.dockerfile.parser import parse
    from builder.dockerfile.reader import read
    from builder.errors import DockerfileError
    from builder.excerpt import excerpt
    from builder.graph import Evaluation, Surroundings
    from builder.steps.step import Base
    from layers.errors import ImageError, PybuildError
    from layers.oci import Platform

    def missing(name: str, _platform: Platform) -> Base:
        raise ImageError(f"there is no {name}")

    surroundings = Surroundings(
        find_image=missing,
        contexts=NamedContexts({}),
        platform=Platform.parse("linux/amd64"),
        build_args={"GIVEN": "1"},
        labels={},
        warn=lambda message, location: None,
        builds=False,
    )

    def target(data: bytes) -> None:
        wrong = None
        try:
            source = read(data, "Dockerfile")
            dockerfile = parse(source)
        except DockerfileError as error:
            wrong = error
        if wrong:
            assert wrong.location is not None, wrong
            excerpt(wrong.location)
            return
        try:
            refuse_foreign(source)
            settings = read_settings(source.directives.check, {})
            evaluation = Evaluation(dockerfile, "", surroundings)
        except PybuildError:
            return
        failure = evaluation.look_through(everything=True)
        findings = find_all(evaluation.survey(), settings, lambda path: "a" in path)
        for location in [failure.location if failure else None, *(finding.location for finding in findings)]:
            if location is not None:
                excerpt(location)

    return target


def seeds() -> Iterator[bytes]:
    """The Dockerfiles of all tests."""
    for path in (_TESTDATA / "dockerfiles").glob("*/Dockerfile"):
        yield path.read_bytes()
    for path in (_TESTDATA / "cases").glob("*.toml"):
        for case in tomllib.loads(path.read_text()).values():
            yield case["dockerfile"].encode()


if __name__ == "__main__":
    import_module("harness").fuzz(load, seeds())
