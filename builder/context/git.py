"""Git repositories by the machine's own `git`, in surroundings in which nothing of the person's configuration counts.

A repository may come from anybody. No hook, filter, credential helper or file monitor of it is run, no protocol but
those allowed is spoken (submodules included), nobody is asked for a password, and no URL or ref is an option.
"""

import os
import re
import shlex
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder.context.repository import Repository, without_password
from builder.errors import ContextError
from layers.data import dataclass

if TYPE_CHECKING:
    import subprocess

PROTOCOLS = ("https", "http", "ssh", "git")

_SETTINGS = (
    "advice.detachedHead=false",
    "core.autocrlf=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.logAllRefUpdates=false",
    "credential.helper=",
    "gc.auto=0",
    "http.lowSpeedLimit=1",  # bytes in a second: a server that is silent for a minute is given up
    "http.lowSpeedTime=60",
    "init.defaultBranch=main",
    "submodule.recurse=false",
)
_HANDED_ON = ("PATH", "SSH_AUTH_SOCK")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy", "no_proxy")
_MOST_REASON = 400
_SECONDS_BETWEEN_CHECKS = 0.5
_HINTS = (
    ("could not read Username", "it is private, or not there; a login is given by --secret id=GIT_AUTH_TOKEN"),
    ("Authentication failed", "is the login right? it is given by --secret id=GIT_AUTH_TOKEN"),
    ("Host key verification failed", "connect to the host once with ssh, so that its key is known"),
    ("Permission denied (publickey", "the ssh agent ($SSH_AUTH_SOCK) has no key that the host knows"),
    ("not allowed", f"pybuild fetches by {', '.join(PROTOCOLS)} only"),
    ("Could not resolve host", "check the name of the host, and the network"),
)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a ref is at the moment."""

    hash: str
    ref: str = ""
    """In full: refs/heads/main; "" if a commit was named."""


class Git:
    """Asks servers and checks commits out. Any thread may use it; ContextError for all that goes wrong."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        ca_file: str = "",
        protocols: tuple[str, ...] = PROTOCOLS,
        check_cancelled: Callable[[], object] = lambda: None,
        login: Callable[[str], str] = lambda _: "",
    ) -> None:
        """Of the environment only what leads to the network is handed on; of its HOME only ssh's known hosts.

        `login` gives the Authorization header for the server of a URL, or nothing. `check_cancelled` is called now and
        then, and ends what git does by raising an error.
        """
        self._check_cancelled = check_cancelled
        self._login = login
        known_hosts = shlex.quote(os.path.join(environment.get("HOME") or "/", ".ssh", "known_hosts"))
        proxies = (*_PROXIES, *(name.upper() for name in _PROXIES))
        self._environment = {name: environment[name] for name in (*_HANDED_ON, *proxies) if name in environment} | {
            "GIT_ALLOW_PROTOCOL": ":".join(protocols),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": f"ssh -o BatchMode=yes -o ConnectTimeout=20 -o UserKnownHostsFile={known_hosts}",
            "GIT_TERMINAL_PROMPT": "0",
            "HOME": "/nonexistent",  # git, and curl in it, would look for passwords there
            "LC_ALL": "C",
        }
        if ca_file:
            self._environment["GIT_SSL_CAINFO"] = ca_file

    def commit(self, repository: Repository) -> Commit:
        """What the ref is now. The server is asked, unless the ref is a commit itself."""
        if repository.is_pinned:
            return self._checked(repository, Commit(repository.ref))
        wanted = repository.ref or "HEAD"
        with _explained(repository):
            listing = self._run(
                "ls-remote", "--symref", "--", repository.url, wanted, wanted + "^{}", url=repository.url
            )
        found = _choose(wanted, listing)
        if found is None:
            raise ContextError(
                f"the repository {without_password(repository.url)} has no {repository.ref or 'commit'}",
                hint="a ref is the name of a branch or a tag, or a whole commit hash" if repository.ref else "",
            )
        return self._checked(repository, found)

    def checkout(self, repository: Repository, commit: Commit, folder: str, *, keep_git_dir: bool) -> None:
        """Put the files of a commit, and of its submodules, into an empty folder; with them `.git` if it is to be kept.

        Modes are 0644 and 0755, times those of the commit: the same commit gives the same files everywhere.
        """
        with _explained(repository):
            self._fetch(repository, commit, folder)
            self._within(folder, "checkout", "--quiet", "--force", "--detach", commit.hash, "--")
            if repository.submodules and os.path.isfile(os.path.join(folder, ".gitmodules")):
                self._update_submodules(folder, repository.url)
            time = int(self._within(folder, "show", "--no-patch", "--format=%ct", commit.hash, "--").strip())
            self._within(folder, "remote", "set-url", "origin", without_password(repository.url))
        _settle(folder, max(0, time), keep_git_dir=keep_git_dir)

    @staticmethod
    def _checked(repository: Repository, commit: Commit) -> Commit:
        if not commit.hash.startswith(repository.checksum):
            raise ContextError(
                f"{repository} is commit {commit.hash}, and should be {repository.checksum}",
                hint="the branch or tag has moved since the checksum was written; look at what changed",
            )
        return commit

    def _fetch(self, repository: Repository, commit: Commit, folder: str) -> None:
        """Get the commit alone where the server can give it, else all branches and tags."""
        form = "sha256" if len(commit.hash) == 64 else "sha1"
        self._run("init", "--quiet", "--template=", f"--object-format={form}", "--", folder)
        self._within(folder, "remote", "add", "--", "origin", repository.url)
        url = repository.url
        one = f"+{commit.ref}:{_local(commit.ref)}" if commit.ref else commit.hash
        everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        try:
            self._within(folder, "fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin", one, url=url)
            self._within(folder, "cat-file", "-e", commit.hash + "^{commit}")
        except _GitError:
            # Some servers know no shallow clones, or no commits by their hash; or the branch has moved on meanwhile.
            shallow = ["--unshallow"] if os.path.exists(os.path.join(folder, ".git", "shallow")) else []
            self._within(folder, "fetch", "--quiet", "--no-tags", *shallow, "--", "origin", *everything, url=url)
            self._within(folder, "cat-file", "-e", commit.hash + "^{commit}")

    def _update_submodules(self, folder: str, url: str) -> None:
        update = ("submodule", "--quiet", "update", "--init", "--recursive")
        try:
            self._within(folder, *update, "--depth=1", url=url)
        except _GitError:
            self._within(folder, *update, url=url)

    def _within(self, folder: str, *arguments: str, url: str = "") -> str:
        return self._run("-C", folder, *arguments, url=url)

    def _with_login(self, url: str) -> dict[str, str]:
        """The environment of a git that may log in to the server of a URL, and to no other.

        Not on its command line, which everybody on this machine can read.
        """
        header = self._login(url) if url else ""
        if not header:
            return self._environment
        parts = urlsplit(url)
        return self._environment | {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: {header}",
        }

    def _run(self, *arguments: str, url: str = "") -> str:
        """What git prints; _GitError if it fails. `url` is where it may have to log in."""
        import subprocess  # few builds have anything to do with git

        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        try:
            process = subprocess.Popen(
                ["git", *settings, *arguments],
                env=self._with_login(url),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # without a terminal that ssh could ask for a password on
                umask=0o022,
            )
        except FileNotFoundError as error:
            raise ContextError(
                "there is no git on this machine", hint="install git; it fetches repositories"
            ) from error
        with process:
            try:
                out, err = self._communicate(process)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a session is a group too: git has helpers, such as ssh
                raise
        if process.returncode:
            raise _GitError(without_passwords(os.fsdecode(err)))
        return os.fsdecode(out)

    def _communicate(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        """All that a process prints."""
        import subprocess  # as above

        while True:
            try:
                return process.communicate(timeout=_SECONDS_BETWEEN_CHECKS)
            except subprocess.TimeoutExpired:
                self._check_cancelled()


class _GitError(Exception):
    """What git printed as it failed."""


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    try:
        yield
    except _GitError as error:
        hint = next((hint for words, hint in _HINTS if words in str(error)), "")
        raise ContextError(f"git cannot fetch {repository}: {_reason(str(error))}", hint=hint) from error


def without_passwords(text: str) -> str:
    """A text with the URLs in it fit to be shown."""
    return re.sub(r"(?<=://)[^/\s@'\"]*@", "", text)


def _reason(said: str) -> str:
    """The line that tells most of what git printed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = (
        [line for line in lines if line.startswith(("fatal:", "error:", "ssh:", "remote:"))] or lines or ["it ended"]
    )
    text = re.sub(r"^(fatal|error): ", "", telling[0])[:_MOST_REASON]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _choose(wanted: str, listing: str) -> Commit | None:
    """The ref of `git ls-remote --symref` that is meant; a branch goes before a tag of the same name, as in git."""
    heads: dict[str, str] = {}
    symbolic: dict[str, str] = {}
    for line in listing.splitlines():
        value, _, name = line.partition("\t")
        (symbolic if value.startswith("ref: ") else heads)[name] = value.removeprefix("ref: ")
    bare = wanted.removeprefix("refs/")
    for name in (wanted, f"refs/{bare}", f"refs/heads/{bare}", f"refs/tags/{bare}"):
        if name in heads:
            # What an annotated tag is on is listed beside it.
            return Commit(heads.get(name + "^{}", heads[name]), symbolic.get(name, name if name != "HEAD" else ""))
    return None


def _local(ref: str) -> str:
    """Where a fetched ref stands in our repository: as after `git clone`."""
    if ref.startswith("refs/heads/"):
        return "refs/remotes/origin/" + ref.removeprefix("refs/heads/")
    return ref


def _settle(folder: str, time: int, *, keep_git_dir: bool) -> None:
    """Drop what is git's own, and give the rest one time and modes that depend on nothing but the commit."""
    from shutil import rmtree  # only repositories need it

    if keep_git_dir:
        for note in ("FETCH_HEAD", "ORIG_HEAD"):
            if os.path.lexists(os.path.join(folder, ".git", note)):
                os.unlink(os.path.join(folder, ".git", note))
    else:
        rmtree(os.path.join(folder, ".git"))
    for here, folders, files in os.walk(folder, topdown=False):
        if not keep_git_dir and ".git" in files:  # of a submodule
            files.remove(".git")
            os.unlink(os.path.join(here, ".git"))
        for name in (*files, *folders):
            _dress(os.path.join(here, name), time)
    _dress(folder, time)


def _dress(path: str, time: int) -> None:
    mode = os.lstat(path).st_mode
    if not stat.S_ISLNK(mode):
        os.chmod(path, 0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
    os.utime(path, (time, time), follow_symlinks=False)
