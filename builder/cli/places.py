"""Where things of a person are, by the environment. Imports nothing: a build with nothing to do begins with this."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def home(environment: "Mapping[str, str]") -> str:
    """The person's home folder; `/` if nobody knows one."""
    folder = environment.get("HOME") or os.path.expanduser("~")
    return folder if os.path.isabs(folder) else "/"


def default_root(environment: "Mapping[str, str]") -> str:
    """Where the store is unless --root says otherwise."""
    chosen = environment.get("PYBUILD_ROOT")
    if chosen:
        return chosen
    data = environment.get("XDG_DATA_HOME") or os.path.join(home(environment), ".local", "share")
    return os.path.join(data, "pybuild")
