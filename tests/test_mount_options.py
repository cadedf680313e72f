"""What RUN's flags and here-documents mean, and how each mistake in them is told: nothing is executed."""

from collections.abc import Mapping

import pytest

from builder.dockerfile.instructions import Run as RunText
from builder.dockerfile.parser import parse
from builder.dockerfile.reader import read
from builder.errors import DockerfileError, Location, located
from builder.evaluation.run import run_action
from builder.evaluation.stage_state import Scope, StageState
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromStage,
    Origin,
    Run,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from cache.mount_sharing import Sharing
from layers.data import replace
from layers.oci import ImageConfig, Platform, RunConfig


def origin(name: str) -> Origin:
    return FromStage(int(name)) if name.isdigit() else FromContext(name)


class Stage:
    """A stage in which RUN lines are read."""

    def __init__(self, directory: str = "/", build_args: Mapping[str, str] | None = None) -> None:
        self.warnings: list[str] = []
        self.state = StageState.begin(ImageConfig(Platform.host(), RunConfig(working_dir=directory)), "\\")
        self.scope = Scope(build_args or {}, {}, origin, self.warn)

    def warn(self, message: str, location: Location | None) -> None:
        assert location is not None
        self.warnings.append(message)

    def run(self, text: str) -> Run:
        (stage,) = parse(read(f"FROM scratch\nRUN {text}\n".encode(), "Dockerfile")).stages
        (instruction,) = stage.instructions
        assert isinstance(instruction, RunText)
        with located(instruction.location):
            return run_action(instruction, self.state, self.scope)

    def mount(self, text: str) -> RunMount:
        (mount,) = self.run(f"--mount={text} true").mounts
        return mount

    def error(self, text: str) -> DockerfileError:
        with pytest.raises(DockerfileError) as caught:
            self.run(text)
        return caught.value


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/m", BindMount("/m", FromContext())),
        ("type=bind,source=/a/../b/,dst=m", BindMount("/w/m", FromContext(), "b")),
        ("source=../../x,target=/m", BindMount("/m", FromContext(), "x")),
        ("from=0,src=s,destination=/m/,rw", BindMount("/m", FromStage(0), "s", writable=True)),
        ("target=/m,ro=false", BindMount("/m", FromContext(), writable=True)),
        ("target=/m,rw=0", BindMount("/m", FromContext())),
        ("target=/m,rw,ro", BindMount("/m", FromContext())),
        ("source=x", BindMount("/w", FromContext(), "x")),
        ("TYPE=Bind,TARGET=/m", BindMount("/m", FromContext())),
        ("from=scratch,target=/m", TmpfsMount("/m", read_only=True)),
        ("type=cache,target=/c/./d/", CacheMount("/c/d", "/c/d")),
        ("type=cache,target=rel", CacheMount("/w/rel", "rel")),
        ("type=cache,id=x,target=/c,sharing=Locked,ro", CacheMount("/c", "x", Sharing.LOCKED, read_only=True)),
        ("type=cache,target=/c,mode=0700,uid=5,gid=6", CacheMount("/c", "/c", mode=0o700, uid=5, gid=6)),
        ("type=cache,target=/c,from=1,source=s", CacheMount("/c", "/c", seed=BindMount("/c", FromStage(1), "s"))),
        ("type=cache,target=/c,from=scratch", CacheMount("/c", "/c")),
        ("type=tmpfs,target=/t", TmpfsMount("/t")),
        ("type=tmpfs,target=/t,size=1.5k,ro", TmpfsMount("/t", 1536, read_only=True)),
        ("size=10MiB,type=tmpfs,target=/t", TmpfsMount("/t", 10 << 20)),
        ("type=tmpfs,target=/t,size=0", TmpfsMount("/t")),
        ("type=secret,id=s", SecretMount("s", "/run/secrets/s")),
        ("type=secret,id=a/s", SecretMount("a/s", "/run/secrets/s")),
        ("type=secret,src=s,dst=rel", SecretMount("s", "/w/rel")),
        ("type=secret,target=/x/token", SecretMount("token", "/x/token")),
        ("type=secret,id=s,env=T", SecretMount("s", "", "T")),
        ("type=secret,id=s,env=T,target=/t,required", SecretMount("s", "/t", "T", required=True)),
        ("type=secret,id=s,mode=0444,uid=5,gid=6", SecretMount("s", "/run/secrets/s", mode=0o444, uid=5, gid=6)),
        ("type=ssh", SshMount("default", "/run/buildkit/ssh_agent.0")),
        ("type=ssh,id=k,target=s,mode=666,required=true", SshMount("k", "/w/s", required=True, mode=0o666)),
        ("'type=bind,\"source=a,b\",target=/m'", BindMount("/m", FromContext(), "a,b")),
    ],
)
def test_a_mount_means_what_it_means_to_buildkit(text: str, mount: RunMount) -> None:
    assert Stage("/w").mount(text) == mount


def test_agents_without_a_target_are_counted() -> None:
    run = Stage().run("--mount=type=ssh --mount=type=ssh,id=b,target=/b --mount=type=ssh,id=c true")

    assert [mount.target for mount in run.mounts] == ["/run/buildkit/ssh_agent.0", "/b", "/run/buildkit/ssh_agent.2"]


def test_variables_are_replaced_in_every_value() -> None:
    stage = Stage("/w")
    stage.state.environment |= {"TYPE": "cache", "T": "/t", "ID": "i", "HOW": "private", "MODE": "711", "N": "7"}

    mount = stage.mount(
        "type=$TYPE,target=$T/x,id=${ID}-${NONE:-y},sharing=$HOW,mode=$MODE,uid=$N,gid=$N,ro=${NONE:-1}"
    )

    assert mount == CacheMount("/t/x", "i-y", Sharing.PRIVATE, read_only=True, mode=0o711, uid=7, gid=7)


def test_a_variable_in_from_is_refused_with_a_way_out() -> None:
    error = Stage().error("--mount=from=$X,target=/m true")

    assert error.message == "'from' doesn't support variable expansion"
    assert error.hint == "define alias stage instead"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=cashe,target=/m", 'unsupported mount type "cashe"', "did you mean cache?"),
        ("type=,target=/m", 'unsupported mount type ""', "it is one of bind, cache, tmpfs, secret, ssh"),
        ("targt=/m", "unexpected key 'targt' in 'targt=/m'", "did you mean target?"),
        ("nonsense=1,target=/m", "unexpected key 'nonsense' in 'nonsense=1'", "it is one of type, from"),
        ("target", "invalid field 'target' must be a key=value pair", ""),
        ("target=/m,rq", "invalid field 'rq' must be a key=value pair", "did you mean ro?"),
        ("target=/", 'invalid mount target "/"', "target=/PATH"),
        ("type=tmpfs,target=/m/..", 'invalid mount target "/"', ""),
        ("type=secret,id=s,target=/", 'invalid mount target "/"', ""),
        ("source=x", 'invalid mount target "/"', ""),
        ("target=/m,ro=maybe", "invalid value for readonly: maybe", "true or false"),
        ("target=/m,rw=maybe", "invalid value for rw: maybe", "true or false"),
        ("target=/m,required", "unexpected key 'required' for mount type 'bind'", ""),
        ("type=cache,target=/m,size=1m", "unexpected key 'size' for mount type 'cache'", ""),
        ("target=/m,sharing=shared", "invalid cache sharing set for bind mount", ""),
        ("type=cache,target=/m,sharing=lock", 'unsupported sharing value "lock"', "did you mean locked?"),
        ("target=/m,mode=755", 'mode not allowed for "bind" type mounts', ""),
        ("type=tmpfs,target=/m,uid=1", 'uid not allowed for "tmpfs" type mounts', ""),
        ("target=/m,gid=1", 'gid not allowed for "bind" type mounts', ""),
        ("type=cache,target=/m,mode=u+x", "invalid value u+x for mode", "octal"),
        ("type=cache,target=/m,mode=888", "invalid value 888 for mode", "octal"),
        ("type=cache,target=/m,uid=root", "invalid value root for uid", "number"),
        ("type=cache,target=/m,gid=4294967295", "invalid value 4294967295 for gid", "2147483647"),
        ("type=tmpfs,target=/m,size=big", "invalid value for size: big", "64m"),
        ("type=tmpfs,target=/m,size=-1", "invalid value for size: -1", ""),
        ("type=secret", "invalid secret mount. one of source, target required", "id=NAME"),
        ("type=secret,env=T", "invalid secret mount. one of source, target required", "id=NAME"),
        ("type=secret,id=a,source=b", "both source and id can't be set", ""),
        ("type=secret,id=a,from=b", "secret mount should not have a from", ""),
        ("type=secret,id=a,env=A=B", "invalid value for env: A=B", "name of a variable"),
        ("type=ssh,source=x", "ssh does not support source", ""),
    ],
)
def test_a_wrong_mount_is_told_as_buildkit_tells_it(text: str, message: str, hint: str) -> None:
    error = Stage().error(f"--mount={text} true")

    assert error.message == message
    assert hint in error.hint


def test_the_wrong_field_is_marked() -> None:
    error = Stage().error("--mount=type=cache,target=/m,mode=u+x true")

    assert error.location is not None
    assert error.location.span == "mode=u+x"


def test_what_is_wrong_only_once_variables_are_replaced_is_told_too() -> None:
    stage = Stage()
    stage.state.environment["SIZE"] = "huge"

    assert stage.error("--mount=type=tmpfs,target=/t,size=$SIZE true").message == "invalid value for size: huge"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("target=/m,id=x", "id"),
        ("type=cache,target=/m,env=X", "env"),
        ("type=tmpfs,target=/m,source=x", "source"),
        ("type=tmpfs,target=/m,from=0", "from"),
        ("type=ssh,from=0", "from"),
        ("type=secret,id=s,rw", "rw"),
    ],
)
def test_a_key_without_effect_is_warned_of(text: str, key: str) -> None:
    """BuildKit takes these and says nothing."""
    stage = Stage()

    stage.mount(text)

    assert stage.warnings == [f"{key} means nothing in --mount={text}"]


def test_a_namespace_goes_before_the_ids_of_caches() -> None:
    stage = Stage(build_args={"BUILDKIT_CACHE_MOUNT_NS": "team"})

    assert stage.mount("type=cache,target=/c") == CacheMount("/c", "team//c")


def test_the_host_name_can_be_chosen() -> None:
    assert Stage(build_args={"BUILDKIT_SANDBOX_HOSTNAME": "here"}).run("true").hostname == "here"


# --- network, security, devices


@pytest.mark.parametrize(
    ("flag", "entitlement"), [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
)
def test_what_has_to_be_allowed_is_refused_until_it_is(flag: str, entitlement: str) -> None:
    stage = Stage()
    error = stage.error(f"{flag} true")
    stage.scope = replace(stage.scope, allowed=frozenset({entitlement}))

    run = stage.run(f"{flag} true")

    assert error.message == f"{entitlement} is not allowed"
    assert error.hint == f"to allow it, build with --allow {entitlement}"
    assert error.location is not None
    assert error.location.span == flag
    assert (run.network, run.insecure) == ("host" if "network" in flag else "default", "security" in flag)


def test_a_run_has_the_network_of_the_build_unless_it_says_which() -> None:
    stage = Stage()
    stage.scope = replace(stage.scope, network="none", allowed=frozenset({"network.host"}))

    texts = ("true", "--network=default true", "--network=none true", "--network=host true")

    assert [stage.run(text).network for text in texts] == ["none", "none", "none", "host"]


def test_a_device_is_refused_and_marked() -> None:
    error = Stage().error("--device=vendor.com/gpu=all true")

    assert "--device is not supported" in error.message
    assert error.location is not None
    assert error.location.span == "--device=vendor.com/gpu=all"


# --- here-documents that are executed


def test_a_here_document_with_an_interpreter_is_executed_by_the_shell() -> None:
    stage = Stage()
    stage.state.configure(shell=("/bin/ash", "-e", "-c"))

    run = stage.run("<<EOF\n#!/bin/sh\necho $0\nEOF")

    assert run.argv == ("/bin/ash", "-e", "-c", "/dev/pipes/EOF")
    assert run.script is not None
    assert (run.script.target, run.script.text) == ("/dev/pipes/EOF", "#!/bin/sh\necho $0\n")


def test_tabs_are_stripped_from_a_script_that_says_so() -> None:
    run = Stage().run("<<-EOF\n\t#!/bin/sh\n\t\techo x\n\tEOF")

    assert run.script is None
    assert run.argv[-1] == "#!/bin/sh\necho x\n"


def test_a_name_with_a_blank_is_one_word_for_the_shell() -> None:
    run = Stage().run('<<"MY SCRIPT"\n#!/bin/sh\nMY SCRIPT')

    assert run.argv[-1] == "'/dev/pipes/MY SCRIPT'"


def test_a_script_whose_name_is_a_path_is_refused() -> None:
    error = Stage().error("<<a/b\n#!/bin/sh\na/b")

    assert error.message == 'a here-document that begins with #! cannot be named "a/b"'


def test_no_command_at_all_is_refused() -> None:
    assert Stage().error("[]").message == "RUN needs a command"
