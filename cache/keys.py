"""What a step's key is made of. A key stands for everything that the step can read, and for nothing else."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from layers.digest import Digest, canonical_json

FORMAT = 1
"""Part of every key: raised when the same step would now give other bytes, so that old records are not found."""


def key_of(operation: str, parent: Digest | None, material: Mapping[str, Any]) -> Digest:
    """The key of a step: what it does, what it stands on, and everything that it can read.

    `parent` is the chain id of the layers below (None for scratch), not the key that made them: a step that runs again
    and gives the same bytes lets all that follows hit. The parts are named in a JSON object, so that none can run
    into another.
    """
    return Digest.of(
        canonical_json({"format": FORMAT, "operation": operation, "parent": parent, "material": dict(material)})
    )


def chain_id(diff_ids: Sequence[Digest]) -> Digest | None:
    """The name of a stack of layers, lowest first (image-spec config.md, "Layer ChainID"); None for no layer."""
    chain: Digest | None = None
    for diff_id in diff_ids:
        chain = diff_id if chain is None else _upon(chain, diff_id)
    return chain


@lru_cache(maxsize=4096)  # each step of a stage asks for what the one before asked for, and one more
def _upon(chain: Digest, diff_id: Digest) -> Digest:
    return Digest.of(f"{chain} {diff_id}".encode())
