"""The environment of this process, and what of it was asked for."""

from collections.abc import Iterator, Mapping


class Asked(Mapping[str, str]):
    """Variables by name; remembers which were looked up, whether they are set or not."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.answers: dict[str, str | None] | None = {}
        """What was asked for, None for what is not set; None once somebody wanted to know all of them."""

    def __getitem__(self, name: str) -> str:
        if self.answers is not None:
            self.answers[name] = self._environment.get(name)
        return self._environment[name]

    def __iter__(self) -> Iterator[str]:
        self.answers = None
        return iter(self._environment)

    def __len__(self) -> int:
        self.answers = None
        return len(self._environment)
