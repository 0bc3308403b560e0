"""What the installed command calls. It imports little by itself: worker processes import it too, when they start."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line that was typed and ends the process with its exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of what our own sentences say
    try:
        from .main import run

        code = run()
    except KeyboardInterrupt:  # before the command has begun
        print("nmt-async: interrupted.", file=sys.stderr)
        code = 130
    sys.exit(code)
