"""Runs a target under atheris, beginning with seeds that are worth changing.

atheris is not among the packages of `dev`, as it is a large one that only this needs: `pip install atheris`.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def fuzz(load: Callable[[], Callable[[bytes], None]], seeds: Iterable[bytes]) -> None:
    """Fuzz what `load` imports and returns; further arguments of the command line are libFuzzer's.

    Whatever the target raises is a finding: libFuzzer writes the input to a file `crash-...` in the current folder, and
    the same command with that file as its argument runs it again.
    """
    sys.path[:1] = [str(_ROOT)]
    atheris: Any = import_module("atheris")
    instrumented: AbstractContextManager[None] = atheris.instrument_imports(include=["builder", "layers"])
    with instrumented:
        target = load()
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        arguments = sys.argv[1:]
        replays = any(not argument.startswith("-") for argument in arguments)
        atheris.Setup([sys.argv[0], *arguments, *([] if replays else [folder])], target)
        atheris.Fuzz()
