"""The studies: their documents are what results and claims make of them, and claims are about what they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt_async.report.document import is_current, study_results
from nmt_async.study.claims import read_claims
from nmt_async.study.declaration import read_declaration

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("study", "document", "folder", "size"), [
    ("depth", "README.md", "results", "core"),
    ("machines", "README.md", "results", "core"),
    ("repairs", "README.md", "results", "full"),
    ("repairs", "screening.md", "screening", "screening"),
])  # fmt: skip
def test_a_document_is_made_from_the_results(study: str, document: str, folder: str, size: str) -> None:
    declared = read_declaration(EXAMPLES / study / "study.yaml")
    asked = declared.sizes[size].settings
    text = (EXAMPLES / study / document).read_text(encoding="utf-8")
    results = study_results(EXAMPLES / study / folder, asked)
    again = "make it anew: see the top of nmt_async/report/document.py"
    assert is_current(text, results, read_claims(EXAMPLES / study / "claims.yaml"), asked, declared.against), again


@pytest.mark.parametrize(("study", "size"), [("depth", "core"), ("machines", "core")])
def test_claims_are_about_conditions_that_the_study_has(study: str, size: str) -> None:
    declared = {setting.condition for setting in read_declaration(EXAMPLES / study / "study.yaml").sizes[size].settings}
    for claim in read_claims(EXAMPLES / study / "claims.yaml"):
        assert set(claim.conditions) <= declared, claim.id
