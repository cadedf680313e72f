"""SSH agents for commands: a socket of the step's own, and behind it an agent of the person's, or one of ours.

Commands may ask which keys there are, and have something signed. Nothing else goes through: they could otherwise
remove the person's keys, or lock the agent. Messages are those of the SSH agent protocol (draft-ietf-sshm-ssh-agent).
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from builder.credentials import SshAgent
from builder.errors import UsageError
from layers.owners import give

_LISTEN_TO = frozenset({11, 13})
"""SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST."""
_FAILURE = bytes([5])
"""SSH_AGENT_FAILURE: the answer to all others."""
_LONGEST = 256 << 10
"""Bytes of a message, as in OpenSSH's own agent."""


class Agents:
    """The agents of one build, by id. Those for keys are started when they are first needed."""

    def __init__(self, given: Mapping[str, SshAgent], temporary: Callable[[str], str]) -> None:
        """`temporary` gives a private folder that outlives this object."""
        self._given = given
        self._temporary = temporary
        self._started: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __contains__(self, identity: str) -> bool:
        return identity in self._given

    def close(self) -> None:
        """End the agents that were started."""
        self._stack.close()

    def connect(self, identity: str) -> socket.socket:
        """A connection to an agent; UsageError if none can be had."""
        agent = self._given[identity]
        path = agent.socket or self._start(identity, agent)
        try:
            return _connected(path)
        except OSError as error:
            raise UsageError(f"--ssh {identity}: the agent at {path} does not answer: {error.strerror}") from error

    def check(self, identity: str) -> None:
        """UsageError if the agent does not answer."""
        self.connect(identity).close()

    def _start(self, identity: str, agent: SshAgent) -> str:
        with self._lock:
            path = self._started.get(identity)
            if path is None:
                folder = self._temporary("agent")
                self._stack.enter_context(_running_agent(identity, folder))
                for name, key in agent.keys:
                    _add_key(folder, name, key)
                path = self._started[identity] = os.path.join(folder, "agent")
            return path


@contextmanager
def forwarded(path: str, connect: Callable[[], socket.socket], *, mode: int, uid: int, gid: int) -> Iterator[None]:
    """A socket at a path, of this owner and mode, that leads to the agent for the length of a block."""
    folder, name = os.path.split(path)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        listener.bind(f"/proc/self/fd/{directory}/{name}")  # a path may be longer than a socket's name can be
        give(path, uid, gid)
        os.chmod(path, mode)
        listener.listen()
        proxy = _Proxy(listener, connect)
        thread = threading.Thread(target=proxy.serve, name="ssh agent")
        thread.start()
        stack.callback(thread.join)
        stack.callback(proxy.end)
        yield


class _Proxy:
    """Serves the connections to one socket, each in a thread."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._connect = connect
        self._clients: set[socket.socket] = set()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)

    def serve(self) -> None:
        """Until `end` is called by another thread."""
        threads = []
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while all(descriptor != self._stop for descriptor, _ in poll.poll()):
            client, _ = self._listener.accept()
            self._clients.add(client)
            threads.append(threading.Thread(target=self._serve_one, args=(client,), name="ssh agent connection"))
            threads[-1].start()
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        os.close(self._stop)

    def end(self) -> None:
        """Ask `serve` to return."""
        os.eventfd_write(self._stop, 1)

    def _serve_one(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, UsageError), client, self._connect() as agent:
            while request := _receive(client):
                if request[0] in _LISTEN_TO:
                    _send(agent, request)
                    _send(client, _receive(agent) or _FAILURE)
                else:
                    _send(client, _FAILURE)
        self._clients.discard(client)


def _receive(stream: socket.socket) -> bytes:
    """One message; nothing at the end of the stream, or if the message is longer than one can be."""
    header = _exactly(stream, 4)
    length = struct.unpack(">I", header)[0] if header else 0
    return _exactly(stream, length) if length <= _LONGEST else b""


def _exactly(stream: socket.socket, length: int) -> bytes:
    """So many bytes; nothing if the stream ends before."""
    data = b""
    while len(data) < length:
        block = stream.recv(length - len(data))
        if not block:
            return b""
        data += block
    return data


def _send(stream: socket.socket, message: bytes) -> None:
    stream.sendall(struct.pack(">I", len(message)) + message)


def _connected(path: str) -> socket.socket:
    folder, name = os.path.split(path)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


@contextmanager
def _running_agent(identity: str, folder: str) -> Iterator[None]:
    """An agent whose socket is `agent` in a folder. It ends with the block, or soon after this process has ended."""
    # An agent that is given a command ends with it, and `cat` ends when nobody can write to it any more.
    command = ["ssh-agent", "-a", "agent", "sh", "-c", "echo $SSH_AGENT_PID; exec cat"]
    try:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"--ssh {identity}: key files need ssh-agent, which is not installed here",
            hint="install openssh-client; or add the keys to an agent elsewhere and forward that: --ssh ID=SOCKET",
        ) from error
    with process:
        pid = process.stdout.readline() if process.stdout else b""
        try:
            if not pid:
                reason = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
                raise UsageError(f"--ssh {identity}: ssh-agent did not start: {reason or 'it says nothing'}")
            yield
        finally:
            process.kill()
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)  # it would find out by itself, but only after some seconds


def _add_key(folder: str, name: str, key: bytes) -> None:
    """Give a key to our agent by a pipe: so it is on no disk of ours, and its file's mode is nobody's concern."""
    try:
        done = subprocess.run(
            ["ssh-add", "-q", "-"],
            cwd=folder,
            env={"SSH_AUTH_SOCK": "agent", "PATH": os.environ.get("PATH", os.defpath), "SSH_ASKPASS_REQUIRE": "never"},
            input=key,
            capture_output=True,
            check=False,
            start_new_session=True,  # no terminal, so that it cannot ask for a passphrase
        )
    except FileNotFoundError as error:
        raise UsageError(
            "--ssh: key files need ssh-add, which is not installed here", hint="install openssh-client"
        ) from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip()
        if "passphrase" in reason:
            raise UsageError(
                f"--ssh: the key {name} has a passphrase",
                hint="add it to an agent (ssh-add), and forward that: --ssh default",
            )
        raise UsageError(f"--ssh: {name} is no key that ssh-add takes: {reason}")
