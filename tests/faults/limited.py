"""Runs commands one after the other in a process that may take little more memory than it has when it begins.

Standard input: a JSON list of command lines. Standard output: for each a line of JSON, ``[exit code, standard output,
standard error]``; the exit code is null where an exception escaped, whose traceback is the standard error then.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

MORE = 1 << 30
"""Bytes of address space beside what the imported packages take."""
SECONDS = 150
"""That a command may take on a busy machine; one that waits for a pipe would take for ever."""


def outcome(arguments: list[str]) -> list[Any]:
    from nmt_async.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(arguments)
    except BaseException:
        return [None, out.getvalue(), traceback.format_exc()]
    finally:
        signal.alarm(0)
    return [code, out.getvalue(), err.getvalue()]


def main() -> None:
    import matplotlib.pyplot  # noqa: F401
    import torch  # noqa: F401

    import nmt_async.export.conversion
    import nmt_async.score.files
    import nmt_async.training.trainer
    import nmt_async.translate.files  # noqa: F401

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MORE, taken + MORE))
    for arguments in json.load(sys.stdin):
        print(json.dumps(outcome(arguments)), flush=True)


if __name__ == "__main__":
    main()
