"""The journal on disk, and beside it what each sitting of the run computed with: enough to replay the run.

``journal`` is a line of JSON that says which machine began it, then records (`nmt_async.sync.journal`).
``sittings.jsonl`` has a line for each start of the run; the event that says that a run goes on has the line's number.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import BFLOAT16, FLOAT32, FUSED, TORCH
from nmt_async.model.kernels import Arithmetic
from nmt_async.quantity import Quantity
from nmt_async.reading import as_dataclass, json_object, open_ordinary, read_json_lines
from nmt_async.sync.journal import MOST_WORKERS, RECORD_BYTES, Event, decode, encode
from nmt_async.training.cluster_options import MOST_THREADS
from nmt_async.writing import AppendedFile

JOURNAL = "journal"
JOURNAL_FORMAT = 1
LONGEST_HEADER = 4096
"""Bytes of a journal's first line."""

SITTINGS = "sittings.jsonl"


@dataclass(frozen=True)
class SharedStart:
    """What a machine that shares a sitting with others computes with besides.

    Attributes:
        options: how the machines exchange: ``between`` and what goes with it.
        machine: whose state all of them have taken up, by its rank in the start before.
        events: of that machine's journal, resumes not counted, when the state was made; None where nobody knows, or
            where all began anew.
    """

    options: dict[str, Any]
    machine: int = 0
    events: int | None = None


@dataclass(frozen=True)
class Sitting:
    """One start of a run, and what its gradients depend on to the last bit besides options and data.

    Attributes:
        number: counts from 1.
        threads: that each worker computes with on the CPU.
        devices: of the workers, each once.
        stop_after: the option, on which a learning rate that falls until then depends; None if it was not given.
        machine, cpu, torch: as `environment` gives them.
        kernels, precision: that gradients were computed with (`nmt_async.model.kernels`); earlier versions had torch's
            own kernels and float32 only.
        shared: with other machines; None where it is not, or was noted by an earlier version.
    """

    number: int
    threads: int
    devices: tuple[str, ...]
    stop_after: str | None
    machine: str
    cpu: str
    torch: str
    shared: SharedStart | None = None
    kernels: str = TORCH
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"{self.threads} threads are not from 1 to {MOST_THREADS:,}")
        if self.kernels not in (FUSED, TORCH):
            raise ValueError(f"the kernels {shown(self.kernels)} are not known")
        if self.precision not in (FLOAT32, BFLOAT16):
            raise ValueError(f"the precision {shown(self.precision)} is not known")

    @property
    def arithmetic(self) -> Arithmetic:
        """What gradients were computed with."""
        return Arithmetic(self.kernels, self.precision)


def latest_sitting(run: Path) -> int:
    """The number of the latest sitting of the run in the folder ``run``; 0 if it has noted none."""
    return max((sitting.number for sitting in read_sittings(run)), default=0)


def note_sitting(
    run: Path, threads: int, devices: Sequence[str], stop_after: Quantity | None, arithmetic: Arithmetic,
    number: int = 0, shared: SharedStart | None = None,
) -> Sitting:  # fmt: skip
    """Adds the sitting that begins now to those of the run in the folder ``run``.

    Args:
        arithmetic: that gradients are computed with.
        number: of the sitting; 0: one more than that of the latest.
        shared: with other machines, if it is.

    Raises:
        OSError: it could not be written.
    """
    here = environment(threads)
    number = number or latest_sitting(run) + 1
    stop = None if stop_after is None else str(stop_after)
    devices = tuple(dict.fromkeys(devices))
    sitting = Sitting(
        number, threads, devices, stop, here["machine"], here["cpu"], here["torch"], shared, arithmetic.kernels,
        arithmetic.precision,
    )  # fmt: skip
    append_sitting(run, sitting)
    return sitting


def append_sitting(run: Path, sitting: Sitting) -> None:
    """Adds a sitting to those of the run, or of a machine, in the folder ``run``.

    Raises:
        OSError: it could not be written.
    """
    with (run / SITTINGS).open("ab") as file:
        before = b"\n" if file.tell() and not _ends_in_newline(run / SITTINGS) else b""
        file.write(before + json.dumps(asdict(sitting)).encode() + b"\n")


def _ends_in_newline(path: Path) -> bool:
    """Whether the last line is whole, as it is unless a crash left it half written."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def read_sittings(run: Path) -> list[Sitting]:
    """The sittings that the run has noted; lines that are none are passed over. Version 0.1 noted none.

    Raises:
        OSError: the file is there and cannot be read.
    """
    if not (run / SITTINGS).exists():
        return []
    sittings = []
    for values in read_json_lines(run / SITTINGS):
        with contextlib.suppress(TypeError, ValueError):
            sittings.append(as_dataclass(Sitting, values))
    return sittings


class JournalFile:
    """The journal on disk: a line of JSON that says which machine made it, then records.

    Args:
        path: appended to.
        threads: of each worker; with torch's build and the machine's type it decides bit-equality.

    Raises:
        UserError: something else stands there.
    """

    def __init__(self, path: Path, workers: int, threads: int) -> None:
        whole = _whole_bytes(path)
        if path.exists():
            os.truncate(path, whole)
        self._file = AppendedFile(path)
        self._before = self._file.size
        if not self._before:
            header = {"format": JOURNAL_FORMAT, "workers": workers, **environment(threads)}
            self._file.append(json.dumps(header).encode() + b"\n")

    @property
    def recorded(self) -> int:
        """Bytes, of this sitting."""
        return self._file.size - self._before

    def record(self, event: Event) -> None:
        """Appends one event; the system has it after the next `flush`."""
        self._file.append(encode(event))

    def flush(self) -> None:
        """Hands what was recorded to the system.

        Raises:
            OSError: not all could be written; the rest is tried again the next time.
        """
        self._file.flush()

    def secure(self, recorded: int) -> None:
        """Brings what was flushed to the disk. Another thread may call it.

        Args:
            recorded: as it was when something was saved that counts on what had been recorded.

        Raises:
            OSError: that could not be flushed, or cannot be brought there.
        """
        if self._file.written < recorded:
            raise OSError(errno.EIO, "the journal before it is not written")
        self._file.secure()

    def close(self) -> None:
        """Nothing more will be recorded; what the disk had no room for is lost."""
        self._file.close()


def environment(threads: int) -> dict[str, Any]:
    """What gradients depend on to the last bit, besides options and data."""
    return {
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": threads,
    }


def read_journal(path: Path) -> tuple[dict[str, Any], list[Event]]:
    """The journal's header and all its events.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open_ordinary(path) as file:
            return _header(file.readline(LONGEST_HEADER)), list(decode(file.read()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a journal ({_cause(error)}).") from None


def _cause(error: OSError | ValueError) -> str:
    """What is wrong, without the path, which the sentence has."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _whole_bytes(path: Path) -> int:
    """Bytes of a journal without what a crash left half written, since the records after it could not be read.

    Raises:
        UserError: it is no journal, and nothing should be cut from it.
    """
    try:
        with open_ordinary(path) as file:
            line, size = file.readline(LONGEST_HEADER), os.fstat(file.fileno()).st_size
        if size < LONGEST_HEADER and b"\n" not in line and b"}" not in line[:-1]:  # the header itself was cut off
            return 0
        _header(line)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a journal ({_cause(error)}); move it away to go on without what it records."
        ) from None
    return size - (size - len(line)) % RECORD_BYTES


def _header(line: bytes) -> dict[str, Any]:
    header = json_object(line.decode())
    if header.get("format") != JOURNAL_FORMAT:
        raise ValueError(f"it has format {shown(header.get('format'))}, this version reads {JOURNAL_FORMAT}")
    workers = header.get("workers")
    if type(workers) is not int or not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"it says that {shown(workers)} workers made it")
    return header
