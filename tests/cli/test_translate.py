"""``nmt-async translate`` as a user types it."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nmt_async.cli.main import run
from small_model import save_small_model

COMMAND = str(Path(sys.executable).with_name("nmt-async"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE = 60  # seconds, for a machine that is busy with other things


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_small_model(tmp_path_factory.mktemp("translate")))


def translate_file(model, tmp_path, text, *options):
    """What stands in --output after translating ``text``, with one thread, in this process."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run(["translate", model, "-i", str(source), "-o", str(target), "--threads", "1", *options]) == 0
    return target.read_text()


def test_every_line_of_standard_input_gives_one_line_of_standard_output(model):
    lines = [b"the dog", b"", b"\xff\xfe\x00", "🦆\u2028x".encode(), b"dog " * 600, b"the dog"]
    done = subprocess.run(
        [COMMAND, "translate", model], input=b"\n".join(lines), capture_output=True, timeout=PATIENCE, env=ENVIRONMENT
    )
    out = done.stdout.decode().split("\n")
    assert done.returncode == 0
    assert len(out) == len(lines) + 1
    assert out[1] == out[-1] == ""
    assert out[0] == out[5] != ""
    assert done.stderr.decode().splitlines() == [
        "nmt-async: line 3 of standard input is not UTF-8 (byte 1 is 0xff); what cannot be read becomes U+FFFD.",
        "nmt-async: line 5 has 601 subwords and is cut to 512.",
    ]


def test_a_person_who_types_gets_an_answer_at_once_and_ctrl_c_ends_it(model):
    with subprocess.Popen(
        [COMMAND, "translate", model], stdin=-1, stdout=-1, stderr=-1, bufsize=0, env=ENVIRONMENT
    ) as typed:
        for _ in range(2):
            typed.stdin.write(b"the dog\n")
            assert typed.stdout.readline().endswith(b"\n")
        typed.send_signal(signal.SIGINT)
        assert typed.wait(PATIENCE) == 130
        assert typed.stderr.read() in (b"", b"nmt-async: interrupted.\n")


def test_a_reader_who_has_seen_enough_ends_it_without_a_word(model, tmp_path):
    source = tmp_path / "many"
    source.write_text("the dog sees the cat\n" * 3000)
    with subprocess.Popen(
        [COMMAND, "translate", model, "-i", str(source)], stdout=-1, stderr=-1, env=ENVIRONMENT
    ) as command:
        assert command.stdout.readline()
        command.stdout.close()
        assert command.wait(PATIENCE) == 0
        assert command.stderr.read() == b""


def test_n_best_is_in_marians_form(model, tmp_path):
    fields = [
        line.split(" ||| ")
        for line in translate_file(model, tmp_path, "the dog\na cat\n", "--n-best", "-b", "3").splitlines()
    ]
    assert [field[0] for field in fields] == ["0"] * 3 + ["1"] * 3
    assert all(len(field) == 4 and field[2].startswith("F0= -") and float(field[3]) < 0 for field in fields)


def test_compressed_input_and_an_empty_one(model, tmp_path):
    plain = translate_file(model, tmp_path, "the dog\na cat\n")
    assert translate_file(model, tmp_path, gzip.compress(b"the dog\na cat\n")) == plain
    assert translate_file(model, tmp_path, "") == ""


def test_what_is_asked_for_changes_the_search(model, tmp_path):
    text = "the dog sees the cat in the garden\n" * 2
    greedy = translate_file(model, tmp_path, text, "-b", "1")
    wide = translate_file(model, tmp_path, text, "-b", "8", "--normalize", "2")
    assert len(greedy.splitlines()) == len(wide.splitlines()) == 2
    assert greedy != wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/absent"], "absent does not exist"),
        (["{folder}"], "holds no model"),
        (["{model}", "-i", "{folder}/absent"], "--source: there is no file"),
        (["{model}", "-i", "{folder}"], "is a folder"),
        (["{model}", "-i", "{text}", "-o", "{folder}"], "--output: "),
        (["{model}", "-i", "{text}", "-o", "{folder}/absent/out"], "--output: "),
        (["{model}", "-i", "{text}", "--device", "cuda:99"], "--device cuda:99: torch finds "),
        (["{model}", "-i", "{text}", "--beam-size", "0"], "--beam-size: 0"),
        (["{model}", "-i", "{text}", "--beam-size", "many"], "--beam-size"),
        ([], "MODEL"),
    ],
)
def test_a_mistake_is_one_sentence(model, tmp_path, capsys, arguments, message):
    (tmp_path / "text").write_text("the dog\n")
    names = {"folder": str(tmp_path), "model": model, "text": str(tmp_path / "text")}
    assert run(["translate", *(argument.format(**names) for argument in arguments)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_a_translation_that_fails_leaves_the_old_output_and_no_other_file(model, tmp_path, capsys):
    source, target = tmp_path / "in.gz", tmp_path / "out"
    target.write_text("old\n")
    source.write_bytes(gzip.compress(b"the dog\n" * 10_000)[:-20])
    assert run(["translate", model, "-i", str(source), "-o", str(target), "--threads", "1"]) == 2
    assert "cut off" in capsys.readouterr().err
    assert target.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gz", "out"]


def test_dumped_options_give_the_same_translation(model, tmp_path, capsys):
    text = "the dog sees the cat in the garden\n"
    typed = translate_file(model, tmp_path, text, "-b", "2", "--n-best", "--normalize", "1")
    assert run(["translate", model, "-b", "2", "--n-best", "--normalize", "1", "--dump-config"]) == 0
    (tmp_path / "options.yaml").write_text(capsys.readouterr().out)
    assert translate_file(model, tmp_path, text, "--config", str(tmp_path / "options.yaml")) == typed
