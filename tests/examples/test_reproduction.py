"""The document of the study is what its results, claims and declaration make of it."""

from __future__ import annotations

import re
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from nmt_async.errors import UserError
from nmt_async.options import from_mapping
from nmt_async.report.document import TABLES, is_current, main, study_results
from nmt_async.study.claims import read_claims
from nmt_async.study.declaration import read_declaration
from nmt_async.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "reproduction"
DOCUMENT = ROOT / "docs" / "reproduction.md"
DECLARED = read_declaration(STUDY / "study.yaml")
ASKED = DECLARED.sizes["full"].settings
AGAIN = "make it anew: see the top of nmt_async/report/document.py"


def test_the_document_is_made_from_the_results_beside_it() -> None:
    results = study_results(STUDY / "results", ASKED)
    claims = read_claims(STUDY / "claims.yaml")
    text = DOCUMENT.read_text(encoding="utf-8")
    assert is_current(text, results, claims, ASKED, DECLARED.against), AGAIN
    links = set(re.findall(r"\]\(#((?:run|claim)-[^)]+)\)", text))
    assert links <= set(re.findall(r'<a id="([^"]+)">', text))
    for file in re.findall(r"\]\(((?:\.\./|\w)[^)#]*)\)", text):
        assert file.startswith("http") or (DOCUMENT.parent / file).exists(), file


def test_claims_are_about_conditions_that_the_study_has() -> None:
    declared = {setting.condition for setting in ASKED}
    for claim in read_claims(STUDY / "claims.yaml"):
        assert set(claim.conditions) <= declared, claim.id


def test_every_condition_can_be_trained() -> None:
    for setting in ASKED:
        options = from_mapping(TrainOptions, setting.options, setting.condition)
        options.configuration(4000, 4000, joint=True)
        options.rule()
        options.schedule(options.stop_after)


def test_every_region_of_the_document_is_of_conditions_that_the_study_has() -> None:
    conditions = {setting.condition for setting in ASKED}
    claims = {claim.id for claim in read_claims(STUDY / "claims.yaml")}
    for region in re.findall(r"<!-- generated: ([^\n]*?) -->", DOCUMENT.read_text(encoding="utf-8")):
        kind, *patterns = (part.strip() for part in region.split("|"))
        for pattern in patterns:
            assert any(fnmatchcase(name, pattern) for name in (conditions if kind in TABLES else claims)), pattern


def test_a_result_of_another_study_is_refused(tmp_path: Path) -> None:
    one = next((STUDY / "results").glob("*.json"))
    shutil.copy(one, tmp_path)
    assert len(study_results(tmp_path, ASKED)) == 1
    with pytest.raises(UserError, match="which the study does not ask for"):
        study_results(tmp_path, [])
    with pytest.raises(UserError, match="is not a folder"):
        study_results(tmp_path / "none", ASKED)
    changed = tmp_path / one.name
    changed.write_text(changed.read_text().replace('"mini-batch-words":512', '"mini-batch-words":256'))
    with pytest.raises(UserError, match="made with other options"):
        study_results(tmp_path, ASKED)


def test_the_command_makes_the_document_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = len(list((STUDY / "results").glob("*.json")))
    document = tmp_path / "study.md"
    document.write_text("By hand.\n\n<!-- generated: unfinished -->\n<!-- end -->\n", encoding="utf-8")
    words = ["document", str(document), "--study", str(STUDY / "study.yaml"), "--claims", str(STUDY / "claims.yaml")]
    monkeypatch.setattr(sys, "argv", [*words, "--results", str(STUDY / "results")])
    assert main() == 0
    assert f"By hand.\n\n<!-- generated: unfinished -->\n\n{number} of {len(ASKED)} runs" in document.read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--size", "huge"])
    assert main() == 2
    assert capsys.readouterr().err == "--size: 'huge' is not one of quick, core, full.\n"
    monkeypatch.setattr(sys, "argv", ["document", str(tmp_path / "none.md"), *sys.argv[2:-2]])
    assert main() == 2
    assert capsys.readouterr().err == f"{tmp_path / 'none.md'}: No such file or directory.\n"
