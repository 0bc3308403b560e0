"""What a child is given by its parent although another process forks it: open files, and what a process inherits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import resource
import sys
from collections.abc import Sequence
from typing import Any


class Descriptor:
    """An open file among a child's arguments, or within one of them; the child is given a descriptor of its own.

    Attributes:
        number: of the descriptor, here and in the child.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an open file goes to a child only, when it starts")


class HandingPickler(pickle.Pickler):
    """Writes what a child is to be given; `descriptors` are those of the open files in it."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.descriptors: list[int] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Descriptor):
            return None
        self.descriptors.append(value.number)
        return len(self.descriptors) - 1


class ReceivingUnpickler(pickle.Unpickler):
    """Reads it in the child, which has ``descriptors`` for the same open files, in the same order."""

    def __init__(self, file: Any, descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self.descriptors = descriptors

    def persistent_load(self, value: int) -> Descriptor:
        return Descriptor(self.descriptors[value])


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a process inherits.

    Attributes:
        path: of Python's modules.
        environment: its variables.
        directory: the current one; None if it was removed.
        niceness: of its threads.
        cores: on which they may run.
        limits: soft and hard, by their number in `resource`.
    """

    path: list[str]
    environment: dict[str, str]
    directory: str | None
    niceness: int
    cores: set[int]
    limits: dict[int, tuple[int, int]]

    @classmethod
    def here(cls) -> Surroundings:
        """Those of the calling process."""
        directory = None
        with contextlib.suppress(OSError):  # it may have been removed
            directory = os.getcwd()
        kinds = {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
        return cls(
            list(sys.path), dict(os.environ), directory, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0),
            {kind: resource.getrlimit(kind) for kind in kinds},
        )  # fmt: skip

    def take_up(self) -> None:
        """Makes them the calling process's own, as far as it is allowed to."""
        sys.path[:] = self.path
        os.environ.clear()
        os.environ.update(self.environment)
        if self.directory is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.directory)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self.niceness)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self.cores)
        for kind, limit in self.limits.items():
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, limit)
