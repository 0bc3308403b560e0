"""Preparation of Multi30k, where the machine has it (NMT_ASYNC_DATA)."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare

DATA = os.environ.get("NMT_ASYNC_DATA")


@pytest.mark.skipif(not DATA, reason="NMT_ASYNC_DATA does not name the folder of real corpora")
def test_multi30k_comes_back_from_its_tokens(tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "multi30k"
    data = prepare(
        PrepareOptions(
            out=tmp_path / "data", train_source=(folder / "train.en.gz",), train_target=(folder / "train.de.gz",),
            valid_source=(folder / "valid.en.gz",), valid_target=(folder / "valid.de.gz",), vocab_type="bpe",
            character_coverage=1.0,
        )
    )  # fmt: skip
    counts = data.manifest["splits"]["train"]
    assert (counts["read"], counts["source"]["unknown"], counts["target"]["unknown"]) == (29_000, 0, 0)
    assert 28_980 <= counts["kept"] == len(data.train)
    assert data.valid is not None
    _, references = data.valid_lines()
    assert references == gzip.decompress((folder / "valid.de.gz").read_bytes()).decode().splitlines()
    same = sum(
        data.target_vocabulary.decode(data.valid.target[index].tolist()) == " ".join(reference.split())
        for index, reference in enumerate(references)
    )
    assert same > 0.97 * len(references)  # NFKC rewrites a few signs
