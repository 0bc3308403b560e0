"""Links between the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, FENCE, ROOT, code_spans, read


def anchors(text: str) -> set[str]:
    """What the headings of a document, and its own anchors, are called in links (as GitHub names them)."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading_in_it(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(document))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), f"{document}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{document}: {link}"


def test_every_document_is_in_the_index() -> None:
    index = read("docs/README.md")
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", index) if ":" not in link}
    assert {ROOT / document for document in DOCUMENTS} - {ROOT / "README.md", ROOT / "docs" / "README.md"} <= linked


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_file_of_the_code_that_is_named_exists(document: Path) -> None:
    named = {span for span in code_spans(read(document)) if re.fullmatch(r"\.?[\w-]+(/[\w-]+)*/[\w-]*(\.py)?", span)}
    ours = {name for name in named if name.endswith(".py") or (ROOT / "nmt_async" / name.partition("/")[0]).is_dir()}
    missing = {name for name in ours if not any((place / name).exists() for place in (ROOT, ROOT / "nmt_async"))}
    assert missing == set()


def test_every_file_in_the_table_of_folders_is_in_its_folder() -> None:
    table = read("docs/architecture.md").partition("| folder | concept |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", table, flags=re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "nmt_async").glob("*/__init__.py")} | {"cli"}
    assert set(rows) == folders
    for folder, concept in rows.items():
        within = ROOT / folder if folder == "cli" else ROOT / "nmt_async" / folder
        named = re.findall(r"`(\w+\.py)`", re.sub(r"`translate/engine.py` uses `\w+.py`", "", concept))
        assert [name for name in named if not (within / name).exists()] == [], folder
