"""What ADD means beyond COPY: URLs and repositories among its sources."""

from builder.context.remote import file_name
from builder.context.repository import Repository, parse_repository, scheme_of
from builder.dockerfile import instructions as d
from builder.errors import ContextError, DockerfileError
from builder.steps.remote import Remote, RemoteFile, RemoteRepository
from layers.data import replace
from layers.digest import Digest, DigestError


def remotes_of(add: d.Add, sources: tuple[str, ...], destination: str, checksum: str) -> tuple[Remote, ...]:
    """Those of the expanded sources that are not in the context; DockerfileError if the flags do not fit them."""
    remotes = [remote for source in sources if (remote := _remote(add, source))]
    if checksum:
        if len(sources) != 1:
            message = "checksum can't be specified for multiple sources"
            raise DockerfileError(message, hint="write an ADD for each", span=f"--checksum={add.checksum}")
        if not remotes:
            raise DockerfileError(
                "checksum requires HTTP(S) or Git sources",
                hint="leave --checksum out for local files",
                span=f"--checksum={add.checksum}",
            )
        remotes = [_with_checksum(remotes[0], checksum)]
    for remote in remotes:
        if isinstance(remote, RemoteFile) and not remote.name and destination.endswith("/"):
            message = f"{remote.text} has no name for a file in {destination}"
            raise DockerfileError(message, hint="give the destination a name", span=remote.text)
    return tuple(remotes)


def is_remote(source: str) -> bool:
    """Whether ADD takes a source from elsewhere."""
    return scheme_of(source) in {"http", "https"} or _repository(source) is not None


def _remote(add: d.Add, source: str) -> Remote | None:
    repository = _repository(source)
    if repository is not None:
        keep = add.keep_git_dir if add.keep_git_dir is not None else bool(repository.keep_git_dir)
        return RemoteRepository(source, repository, keep)
    if scheme_of(source) in {"http", "https"}:
        return RemoteFile(source, file_name(source), unpack=add.unpack_remote)
    return None


def _repository(source: str) -> Repository | None:
    try:
        return parse_repository(source)
    except ContextError as error:
        raise DockerfileError(error.message, hint=error.hint, span=source) from error


def _with_checksum(remote: Remote, checksum: str) -> Remote:
    if isinstance(remote, RemoteFile):
        try:
            return replace(remote, checksum=Digest(checksum))
        except DigestError as error:
            raise DockerfileError(f"--checksum={checksum} is no digest", hint="write sha256: and 64 digits") from error
    known = remote.repository.checksum
    if known and known != checksum:
        raise DockerfileError(f"--checksum={checksum} is not the {known} that the URL demands")
    if not checksum.isalnum() or set(checksum) - set("0123456789abcdef"):
        raise DockerfileError(f"--checksum={checksum} is no commit hash, nor the beginning of one")
    return replace(remote, repository=replace(remote.repository, checksum=checksum))
