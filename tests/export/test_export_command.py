"""The command export: where it writes, what it refuses, and what it says of the program that loads the folder."""

from __future__ import annotations

import pytest
import torch
from exported import RECURRENT, build
from nmt_async.cli.main import run

from nmt_async.errors import UserError
from nmt_async.export.conversion import export
from nmt_async.export.options import ExportOptions
from nmt_async.export.verification import PROGRAMS, Program, Translated, compared
from nmt_async.options import check_together
from nmt_async.translate.translator import LineTranslator

CPU = torch.device("cpu")


def test_a_folder_in_use_is_refused_and_an_empty_one_filled(saved, tmp_path):
    model = saved()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        export(ExportOptions(), model, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        export(ExportOptions(), model, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert export(ExportOptions(), model, tmp_path / "empty") is None
    assert (tmp_path / "empty" / "model.npz").exists()


@pytest.mark.parametrize("name", ["marian", "huggingface"])
def test_a_refused_model_leaves_no_folder(vocabularies, name, tmp_path):
    model = build(tmp_path / "rnn", vocabularies, **RECURRENT)
    with pytest.raises(UserError, match="cannot be exported"):
        export(ExportOptions(format=name), model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rnn"]


def test_a_program_that_is_missing_is_named_before_anything_is_written(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(PROGRAMS, "marian", Program("absent_program", "absent", PROGRAMS["marian"].translate))
    with pytest.raises(UserError, match="pip install absent"):
        export(ExportOptions(verify=tmp_path / "text"), saved(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="--quantization means nothing with --format marian"):
        check_together(ExportOptions(quantization="int8"))
    check_together(ExportOptions(format="marian-bin", quantization="int8"))
    with pytest.raises(UserError, match="not a share"):
        ExportOptions(verify_share=1.5)


def test_agreement_counts_lines_and_compares_scores_of_the_same_text():
    ours = [Translated("a", -1.0), Translated("b", -2.0), Translated("c", -3.0), Translated("", 0.0)]
    theirs = [Translated("a", -1.25), Translated("x", -9.0), Translated(" c", -3.0), Translated("", 0.0)]
    found = compared(ours, theirs)
    assert (found.lines, found.identical, found.share, found.score_difference) == (4, 3, 0.75, 0.25)


def test_a_program_that_translates_otherwise_makes_the_exit_code_1(saved, lines, tmp_path, monkeypatch, capsys):
    """The other program is one that finds the same in nine lines of ten."""

    def nearly(_, loaded, lines, options):
        made = LineTranslator(loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, CPU)
        texts = [Translated(found.text, found.score) for found in made.translate(lines)]
        return [Translated("other", 0.0) if not number % 10 else text for number, text in enumerate(texts)]

    monkeypatch.setitem(PROGRAMS, "marian", Program("json", "json", nearly))
    text = tmp_path / "text"
    text.write_text("\n".join(lines) + "\n")
    command = ["export", str(saved()), "--verify", str(text)]
    assert run([*command, str(tmp_path / "strict")]) == 1
    said = capsys.readouterr()
    assert said.out == "36 of 40 lines are identical (90.00%); largest score difference between them: 0.000000\n"
    assert "less than --verify-share 0.98" in said.err
    assert run([*command, str(tmp_path / "lenient"), "--verify-share", "0.9"]) == 0
    assert (tmp_path / "strict" / "model.npz").exists()


def test_a_user_exports_verifies_imports_and_translates(trained, lines, tmp_path):
    pytest.importorskip("pymarian")
    text, out, back = tmp_path / "text", tmp_path / "out", tmp_path / "back"
    text.write_text("\n".join(lines) + "\n")
    assert run(["export", "--format", "marian", str(trained()), str(out), "--verify", str(text)]) == 0
    vocabulary = str(out / "vocab.spm")
    assert run(["import", str(out / "model.npz"), "--vocabs", vocabulary, vocabulary, "--out", str(back)]) == 0
    assert run(["translate", str(back), "-i", str(text), "-o", str(tmp_path / "made")]) == 0
    assert len((tmp_path / "made").read_text().splitlines()) == len(lines)


@pytest.mark.numeric
@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_ctranslate2_translates_as_we_do(trained, lines, quantization, tmp_path):
    pytest.importorskip("nmt_async.export.ctranslate2")
    pytest.importorskip("ctranslate2")
    text = tmp_path / "text"
    text.write_text("\n".join(lines) + "\n")
    options = ExportOptions(format="ctranslate2", quantization=quantization, verify=text)
    found = export(options, trained(norm="pre", tied="target"), tmp_path / "out")
    assert found.share >= (0.95 if quantization == "float32" else 0.5)
    assert found.score_difference < (1e-3 if quantization == "float32" else 0.2)
