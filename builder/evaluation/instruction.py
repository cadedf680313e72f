"""What each instruction means: one function for each, which changes the state of its stage.

The rules, and the words of the history, are those of BuildKit's Dockerfile frontend; docs/dockerfile.md names the test
of each.
"""

import posixpath

from builder.dockerfile import instructions as d
from builder.dockerfile.values import exposed_ports, go_duration, stop_signal
from builder.errors import DockerfileError
from builder.evaluation.copy import copy_action
from builder.evaluation.run import run_action
from builder.evaluation.stage_state import Scope, StageState
from builder.steps.step import Action, MakeDirectory, Step
from layers.data import replace


def evaluate(instruction: d.Instruction, state: StageState, scope: Scope) -> None:
    """Apply an instruction to its stage; DockerfileError if it is wrong, or is not supported yet."""
    _Evaluation(instruction, state, scope).apply()


class _Evaluation:
    """One instruction in its stage."""

    def __init__(self, instruction: d.Instruction, state: StageState, scope: Scope) -> None:
        self._instruction = instruction
        self._state = state
        self._scope = scope

    def apply(self) -> None:
        match self._instruction:
            case d.Arg(declarations=declarations):
                self._arg(declarations)
            case d.Env(pairs=pairs):
                self._env(pairs)
            case d.Label(pairs=pairs):
                self._label(pairs)
            case d.Run() as run:
                self._run(run)
            case d.Copy() as copy:
                self._copy(copy)
            case d.Workdir(path=path):
                self._workdir(path)
            case d.OnBuild(text=text, fault=fault):
                if fault:
                    warning = f"a trigger that ends the builds on this image: {fault.message}"
                    self._scope.warn(warning, fault.location)
                # No line of the history: that is BuildKit's way.
                self._state.configure(on_build=(*self._state.config.config.on_build, text))
            case _:
                self._start_setting()

    def _start_setting(self) -> None:
        """Instructions that say how a container starts."""
        match self._instruction:
            case d.Cmd(command=command):
                self._cmd(command)
            case d.Entrypoint(command=command):
                self._entrypoint(command)
            case d.User(user=user):
                user = self._state.word(user)
                self._state.configure(user=user)
                self._note(f"USER {user}")
            case d.Expose(ports=ports):
                self._expose(ports)
            case d.Volume(paths=paths):
                self._volume(paths)
            case d.StopSignal(signal=signal):
                self._stop_signal(signal)
            case d.Shell(words=words):
                self._state.configure(shell=words)
                self._note(f"SHELL [{' '.join(words)}]")
            case d.Healthcheck() as check:
                self._healthcheck(check)
            case d.Maintainer(text=text):
                self._state.config = replace(self._state.config, author=text)
                self._note(f"MAINTAINER {text}")
            case other:
                raise AssertionError(other)

    def _arg(self, declarations: tuple[d.Declaration, ...]) -> None:
        shown = []
        for declaration in declarations:
            name = self._state.word(declaration.name)
            value = self._scope.build_args.get(name)
            if value is None and declaration.default is not None:
                value = self._state.word(declaration.default)
            elif value is None:
                value = self._scope.global_args.get(name)
            self._state.arguments.append((name, value))
            # A proxy that is declared is a common argument from here on: in keys and in the history.
            if value is not None:
                self._state.environment[name] = value
            shown.append(name if value is None else f"{name}={value}")
        self._note(f"ARG {' '.join(shown)}")

    def _env(self, pairs: tuple[d.Pair, ...]) -> None:
        expanded = self._pairs(pairs)
        for pair, (name, _) in zip(pairs, expanded, strict=True):
            if not name:
                raise DockerfileError("a name is empty once its variables are expanded", span=pair.name)
        environment = self._state.config.config.environment | dict(expanded)
        self._state.configure(env=tuple(f"{name}={value}" for name, value in environment.items()))
        self._state.environment.update(expanded)
        self._note("ENV " + " ".join(f"{name}={value}" for name, value in expanded))

    def _label(self, pairs: tuple[d.Pair, ...]) -> None:
        expanded = self._pairs(pairs)
        self._state.configure(labels={**self._state.config.config.labels, **dict(expanded)})
        self._note("LABEL " + " ".join(f"{name}={value}" for name, value in expanded))

    def _run(self, run: d.Run) -> None:
        action = run_action(run, self._state, self._scope)
        self._step(f"RUN {self._arguments_shown()}{' '.join(action.argv)} # buildkit", action)

    def _arguments_shown(self) -> str:
        """The arguments in scope as the history has them: `|2 A=1 B=2 `."""
        shown = {name: self._state.environment.get(name, value or "") for name, value in self._state.arguments}
        if not shown:
            return ""
        return f"|{len(shown)} " + "".join(f"{name}={value} " for name, value in shown.items())

    def _copy(self, copy: d.Copy) -> None:
        created_by, action = copy_action(copy, self._state, self._scope)
        self._step(f"{created_by} # buildkit", action)

    def _workdir(self, written: str) -> None:
        path = self._state.word(written) or "."
        # POSIX gives two leading slashes a meaning of their own; an image does not.
        path = posixpath.normpath("/" + posixpath.join(self._state.directory, path).lstrip("/"))
        self._state.configure(working_dir=path)
        if path == "/":
            self._note("WORKDIR /")
        else:
            self._step(f"WORKDIR {path}", MakeDirectory(path, self._state.config.config.user))

    def _cmd(self, command: d.ShellForm | d.ExecForm) -> None:
        words = self._state.argv(command)
        self._state.command_set = True
        self._state.configure(cmd=words, args_escaped=True)
        self._note(f"CMD {_quoted(words)}")

    def _entrypoint(self, command: d.ShellForm | d.ExecForm) -> None:
        words = self._state.argv(command)
        self._state.configure(entrypoint=words)
        if not self._state.command_set:
            # Arguments for the entry point of the base image would make no sense to another one.
            self._state.configure(cmd=None)
        self._note(f"ENTRYPOINT {_quoted(words)}")

    def _expose(self, ports: tuple[str, ...]) -> None:
        found: list[str] = []
        for text in sorted(ports):
            for word in self._state.words(text):
                try:
                    found += exposed_ports(word)
                except ValueError as error:
                    raise DockerfileError(str(error), span=text) from error
        self._state.configure(exposed_ports=tuple(sorted({*self._state.config.config.exposed_ports, *found})))
        self._note(f"EXPOSE [{' '.join(found)}]")

    def _volume(self, paths: tuple[str, ...]) -> None:
        volumes = [self._state.word(path) for path in paths]
        if not all(volumes):
            raise DockerfileError("VOLUME specified can not be an empty string")
        self._state.configure(volumes=tuple(sorted({*self._state.config.config.volumes, *volumes})))
        self._note(f"VOLUME [{' '.join(volumes)}]")

    def _stop_signal(self, written: str) -> None:
        try:
            signal = stop_signal(self._state.word(written))
        except ValueError as error:
            raise DockerfileError(str(error), span=written) from error
        self._state.configure(stop_signal=signal)
        self._note(f"STOPSIGNAL {signal}")

    def _healthcheck(self, check: d.Healthcheck) -> None:
        test = ["NONE"]
        if check.command is None:
            self._state.configure(healthcheck={"Test": test})
        else:
            kind = "CMD" if isinstance(check.command, d.ExecForm) else "CMD-SHELL"
            words = check.command.words if isinstance(check.command, d.ExecForm) else (check.command.text,)
            numbers = {
                "Interval": check.interval,
                "Timeout": check.timeout,
                "StartPeriod": check.start_period,
                "StartInterval": check.start_interval,
                "Retries": check.retries,
            }
            set_numbers = {name: number for name, number in numbers.items() if number}
            test = [kind, *words]
            self._state.configure(healthcheck={"Test": test, **set_numbers})
        times = (check.interval, check.timeout, check.start_period, check.start_interval)
        shown = " ".join(f'"{go_duration(time)}"' for time in times)
        self._note(f"HEALTHCHECK &{{{_quoted(tuple(test))} {shown} {_rune(check.retries)}}}")

    def _pairs(self, pairs: tuple[d.Pair, ...]) -> list[tuple[str, str]]:
        """All expanded with what was set before the line."""
        return [(self._state.word(pair.name), self._state.word(pair.text)) for pair in pairs]

    def _note(self, created_by: str) -> None:
        """An instruction that changes the configuration alone."""
        self._step(created_by, None)

    def _step(self, created_by: str, action: Action | None) -> None:
        instruction = self._instruction
        self._state.steps.append(Step(instruction.location, instruction.original, created_by, action))


def _quoted(words: tuple[str, ...]) -> str:
    """A list of words as Go prints it with %q."""
    import json  # of the warm path's modules only this needs it, and has it already

    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


def _rune(number: int) -> str:
    """A small number as Go prints it with %q: it takes it for a character."""
    escapes = dict(zip(range(7, 14), "abtnvfr", strict=True))
    if number in escapes:
        return f"'\\{escapes[number]}'"
    return f"'{chr(number)}'" if 32 <= number < 127 else f"'\\x{number:02x}'"
