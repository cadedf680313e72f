"""What a command is given of the world outside: environment, streams and clocks are read here and nowhere else."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Self, TextIO

from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of one run of the program."""

    environment: Mapping[str, str]
    out: TextIO
    err: TextIO
    monotonic: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns

    @classmethod
    def of_process(cls) -> Self:
        """Those of this process. A stream that the caller closed leads nowhere."""
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if getattr(sys, name) is None:
                # Else the next file to be opened would get the number, and all that is written there.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
                setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - to the end
        return cls(os.environ, sys.stdout, sys.stderr)

    @property
    def home(self) -> str:
        """The person's home folder; `/` if nobody knows one."""
        home = self.environment.get("HOME") or os.path.expanduser("~")
        return home if os.path.isabs(home) else "/"

    def default_root(self) -> str:
        """Where the store is unless --root says otherwise."""
        chosen = self.environment.get("PYBUILD_ROOT")
        if chosen:
            return chosen
        data = self.environment.get("XDG_DATA_HOME") or os.path.join(self.home, ".local", "share")
        return os.path.join(data, "pybuild")

    def ca_file(self) -> str:
        """The certificates that the person chose to trust, by the names that requests and OpenSSL give the choice."""
        return self.environment.get("REQUESTS_CA_BUNDLE") or self.environment.get("SSL_CERT_FILE") or ""

    def docker_config(self) -> str:
        """The folder of Docker's config.json."""
        return self.environment.get("DOCKER_CONFIG") or os.path.join(self.home, ".docker")
