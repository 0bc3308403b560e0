"""The prepared data: each file against the size and the SHA-256 in its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nmt_async.checksums import damages
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.text.prepared import MANIFEST, read_manifest

CHECK = "data"
AGAIN = "copy the folder again, or run prepare again"


def data_findings(folder: Path) -> Iterator[Finding]:
    """One for each damaged file, or one that says that the data is whole.

    Raises:
        UserError: ``folder`` is not a prepared folder.
    """
    files = read_manifest(folder)["files"]
    found = damages(folder, {name: str(file["sha256"]) for name, file in files.items()})
    for damage in found:
        yield Finding(CHECK, "wrong", f"{folder}/{damage}", AGAIN)
    if not found:
        size = sum((folder / name).stat().st_size for name in files)
        yield Finding(
            CHECK, "fine", f"{len(files)} files, {mebibytes(size)}, as {folder / MANIFEST} says (SHA-256 of each)"
        )
