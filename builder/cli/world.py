"""What a command is given of the world outside: environment, streams and clocks are read here and nowhere else."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Self, TextIO

from builder.cli.asked import Asked
from builder.cli.places import default_root, home
from cache.receipts import Question
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of one run of the program."""

    environment: Mapping[str, str]
    out: TextIO
    err: TextIO
    monotonic: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns
    question: Question | None = None
    """What this process was asked; None if no receipt is to be kept of what it answers."""

    @classmethod
    def of_process(cls, question: Question | None = None) -> Self:
        """Those of this process. A stream that the caller closed leads nowhere."""
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if getattr(sys, name) is None:
                # Else the next file to be opened would get the number, and all that is written there.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
                setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - to the end
        return cls(Asked(os.environ), sys.stdout, sys.stderr, question=question)

    @property
    def home(self) -> str:
        """The person's home folder; `/` if nobody knows one."""
        return home(self.environment)

    def default_root(self) -> str:
        """Where the store is unless --root says otherwise."""
        return default_root(self.environment)

    def ca_file(self) -> str:
        """The certificates that the person chose to trust, by the names that requests and OpenSSL give the choice."""
        return self.environment.get("REQUESTS_CA_BUNDLE") or self.environment.get("SSL_CERT_FILE") or ""

    def docker_config(self) -> str:
        """The folder of Docker's config.json."""
        return self.environment.get("DOCKER_CONFIG") or os.path.join(self.home, ".docker")
