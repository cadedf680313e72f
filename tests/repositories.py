"""Git repositories made for tests, and how they are served."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TIME = 1_234_567_890
_IDENTITY = {
    "GIT_AUTHOR_DATE": f"{TIME} +0000",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_COMMITTER_DATE": f"{TIME} +0000",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A repository with a folder of files, on the branch `main` at first."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Upstream":
        folder.mkdir(parents=True)
        upstream = cls(folder)
        upstream.git("init", "--quiet", "--initial-branch=main", ".")
        return upstream

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def git(self, *arguments: str) -> str:
        """Run git in the folder; what it prints."""
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **_IDENTITY},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str]) -> str:
        """Write files and commit them with all else that is there; the hash."""
        for path, text in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.git("add", "--all", ".")
        self.git("commit", "--quiet", "--message=change")
        return self.git("rev-parse", "HEAD")

    def served(self) -> dict[str, bytes]:
        """The files that a plain web server would have for it (git-http-fetch's dumb protocol), by their path."""
        self.git("update-server-info")
        top = self.folder / ".git"
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
