"""What a run keeps by the update it was made at: ``checkpoints/step-N``, and ``best-N`` of the best models."""

from __future__ import annotations

from pathlib import Path


def numbered(folder: Path, kind: str) -> dict[int, Path]:
    """What is called ``kind-N`` in ``folder``, by N, the lowest first; nothing where there is no such folder."""
    named = [(path.name.removeprefix(f"{kind}-"), path) for path in folder.glob(f"{kind}-*")]
    return dict(sorted((int(number), path) for number, path in named if number.isdecimal() and number.isascii()))
