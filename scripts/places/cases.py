"""The Dockerfiles that are built everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

BASE = ".cache/debian-12"
EPOCH = "1700000000"
"""The build's time, so that nothing depends on when it happens."""


@dataclass(frozen=True, slots=True)
class Case:
    """One context with a Dockerfile; paths are relative to the checkout."""

    name: str
    context: str
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    runs: bool = True
    """Whether it has a RUN."""

    def program(self, store: str, *arguments: str) -> list[str]:
        """What Python runs to build it, and to write an OCI archive to standard output; `arguments` are build args."""
        named = [f"--build-context=debian:12=oci-layout://{BASE}", "--progress=plain", *self.options]
        named += [f"--build-arg={name}" for name in arguments]
        return [*PYBUILD, "build", f"--root={store}", *named, "--output=type=oci,dest=-", self.context]


PYBUILD = ("-c", "from builder.cli.start import entry; entry()")

_OURS = "testdata/environments"

CASES = (
    Case("flask", "examples/flask"),
    Case("node", "examples/node"),
    Case("static-c", "examples/static-c"),
    Case("packages", f"{_OURS}/packages"),
    Case("owners", f"{_OURS}/owners"),
    Case("kinds", f"{_OURS}/kinds"),
    Case("devices", f"{_OURS}/devices"),
    Case("mounts", f"{_OURS}/mounts", ("--secret=id=token,env=TOKEN",), {"TOKEN": "not for layers"}),
    Case("rights", f"{_OURS}/rights"),
    Case("kernel", f"{_OURS}/kernel"),
    Case("copies", f"{_OURS}/copies", runs=False),
)
