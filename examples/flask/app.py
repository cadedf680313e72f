"""One page that tells where it runs, and a health check."""

import getpass
import platform
from importlib.metadata import version

from flask import Flask, render_template

app = Flask(__name__)


@app.get("/")
def index() -> str:
    """The page."""
    facts = {
        "Distribution": platform.freedesktop_os_release()["PRETTY_NAME"],
        "Python": platform.python_version(),
        "Flask": version("flask"),
        "User": getpass.getuser(),
    }
    return render_template("index.html", facts=facts)


@app.get("/health")
def health() -> dict[str, str]:
    """What a load balancer asks."""
    return {"status": "ok"}
