"""``nmt-async translate`` as a user types it."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command
from nmt_async.cli.main import run
from small_model import WORDS, save_small_model
from training_runs import alive, family, until

COMMAND = str(Path(sys.executable).with_name("nmt-async"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE = 150  # seconds, for a machine that is busy with other things


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


ADVERSARIAL = [
    b"the dog",
    b"",
    b"   \t ",
    b"dog " * 10_000,
    b"?!...,;:-()\"'",
    "\U0001f986 \U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea".encode(),  # emoji: joined by U+200D, a flag
    "\u05e9\u05dc\u05d5\u05dd \u200f- \u0645\u0631\u062d\u0628\u0627".encode(),  # Hebrew, a mark, Arabic
    b"a \x00 dog\x00",
    b"the cat\r",
    b"\r",
    "one\u2028line\u0085too\x0b".encode(),
    b"\xff\xfe caf\xe9",
    "\ufeff".encode(),
    b" ||| 0 ||| ",
    b"the dog",
]


def adversarial_file(folder):
    path = folder / "adversarial"
    path.write_bytes(b"\n".join(ADVERSARIAL))  # the last line has no end
    return str(path)


@pytest.mark.parametrize("options", [[], ["--format", "tsv"], ["--format", "jsonl", "--word-scores"], ["-b", "1"]])
def test_an_adversarial_text_gives_as_many_lines_and_warnings(model, tmp_path, capsys, options):
    out = tmp_path / "out"
    source = adversarial_file(tmp_path)
    assert run(["translate", model, "-i", source, "-o", str(out), "--max-length", "64", *options]) == 0
    content = out.read_bytes().decode()
    assert content.endswith("\n")
    lines = content.removesuffix("\n").split("\n")
    assert len(lines) == len(content.splitlines()) == len(ADVERSARIAL)
    if options == ["--format", "tsv"]:
        lines = [fields[2] for fields in (line.split("\t") for line in lines)]
    elif "jsonl" in options:
        lines = [json.loads(line)["translation"] for line in lines]
    assert lines[1] == lines[2] == lines[9] == ""
    assert lines[0] == lines[-1] != ""
    assert capsys.readouterr().err.splitlines() == [
        f"nmt-async: line 12 of {source} is not UTF-8 (byte 1 is 0xff); what cannot be read becomes U+FFFD.",
        "nmt-async: line 4 has 10,001 subwords and is cut to 64.",
    ]


def test_an_adversarial_text_is_scored_line_by_line_too(model, tmp_path, capsys):
    source = adversarial_file(tmp_path)
    assert run(["score", model, "--source", source, "--target", source, "--max-length", "64"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ADVERSARIAL)


@pytest.mark.parametrize("command", [["translate"], ["translate", "--workers", "2"]])
def test_a_strict_translation_refuses_what_is_not_utf8(model, tmp_path, capsys, command):
    source, out = adversarial_file(tmp_path), tmp_path / "out"
    assert run([*command, model, "-i", source, "-o", str(out), "--strict", "--max-length", "64"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        f"nmt-async: --source: line 12 of {source} is not UTF-8 (byte 1 is 0xff); "
        f"convert the file, or leave --strict out."
    )
    assert len(said) == 1
    assert not out.exists()


def test_several_processes_give_the_same_lines_as_one(model, tmp_path, capsys):
    chance = random.Random(3)
    lines = [" ".join(chance.choices(WORDS.split(), k=chance.randint(1, 9))) for _ in range(300)]
    text = "\n".join([*lines, "", "dog " * 20]) + "\n"
    options = [
        "--mini-batch",
        "8",
        "--maxi-batch",
        "4",
        "--max-length",
        "16",
        "--format",
        "jsonl",
        "--n-best",
        "-b",
        "2",
    ]
    one = [json.loads(line) for line in translate_file(model, tmp_path, text, *options).splitlines()]
    alone = capsys.readouterr().err
    several = [
        json.loads(line) for line in translate_file(model, tmp_path, text, *options, "--workers", "2").splitlines()
    ]
    assert "line 302 has 21 subwords" in alone == capsys.readouterr().err
    assert len(one) == len(several) == 302
    for single, shared in zip(one, several, strict=True):
        assert [found["translation"] for found in single["n_best"]] == [
            found["translation"] for found in shared["n_best"]
        ]
        assert single["normalised"] == pytest.approx(shared["normalised"], abs=1e-5)


def test_no_process_outlives_the_command(model, tmp_path):
    source = tmp_path / "many"
    source.write_text("the dog sees the cat\n" * 100_000)
    with Command(["translate", model, "-i", str(source), "--workers", "2"], stdout=-1, stderr=-1) as command:
        assert command.stdout.readline()
        children = [pid for pid in family(command.pid) - {command.pid} if alive(pid)]
        assert len(children) >= 3  # two that translate, and the one that started them
        command.kill()
        command.wait(PATIENCE)
        until(lambda: not any(map(alive, children)), "the end of the processes")


def peak_memory(model, source, *options):
    """Most bytes that the command held while it translated the file, as the kernel counted them."""
    program = (
        "import resource, sys; from nmt_async.cli.main import run; assert run(sys.argv[1:]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    arguments = ["translate", model, "-i", str(source), "-o", str(source) + ".out", "--quiet", *options]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, timeout=PATIENCE, env=ENVIRONMENT, check=True
    )
    return int(done.stdout)


def test_memory_is_constant_however_long_the_text(model, tmp_path):
    # Empty lines cost no search: what grows with the text would be the lines themselves, read or written.
    sizes = {}
    for lines in (200, 20_000):
        source = tmp_path / f"{lines}"
        with source.open("w") as file:
            file.writelines(" " * 4_000 + "\n" if number % 1000 else "the dog\n" for number in range(lines))
        sizes[lines] = peak_memory(model, source, "-b", "1")
        with Path(f"{source}.out").open("rb") as out:
            assert sum(1 for _ in out) == lines
    assert sizes[20_000] - sizes[200] < 20 * 2**20  # the text has 80 MB


def test_several_models_translate_together(model, tmp_path, capsys):
    text = "the dog sees the cat in the garden\n"
    alone = translate_file(model, tmp_path, text)
    source = str(tmp_path / "in")
    assert run(["translate", model, model, "--weights", "0.3,0.7", "-i", source]) == 0
    assert capsys.readouterr().out == alone
    assert run(["translate", model, model, "--weights", "1", "-i", source]) == 2
    assert "--weights: 1 weight for 2 models" in capsys.readouterr().err


def test_translations_begin_as_a_file_says(model, tmp_path):
    (tmp_path / "begin").write_text("or never\n\n")
    text = "the dog\nthe cat\n"
    found = translate_file(model, tmp_path, text, "--force-decode", str(tmp_path / "begin")).splitlines()
    assert found[0].startswith("or never")
    assert found[1] == translate_file(model, tmp_path, text).splitlines()[1]


def test_a_person_who_types_gets_an_answer_at_once_and_ctrl_c_ends_it(model):
    with Command(["translate", model], stdin=-1, stdout=-1, stderr=-1, bufsize=0) as typed:
        for _ in range(2):
            typed.stdin.write(b"the dog\n")
            assert typed.stdout.readline().endswith(b"\n")
        typed.send_signal(signal.SIGINT)
        assert typed.wait(PATIENCE) == 130
        assert typed.stderr.read() in (b"", b"nmt-async: interrupted.\n")


def test_a_reader_who_has_seen_enough_ends_it_without_a_word(model, tmp_path):
    source = tmp_path / "many"
    source.write_text("the dog sees the cat\n" * 3000)
    with Command(["translate", model, "-i", str(source)], stdout=-1, stderr=-1) as command:
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
        (["{model}", "-i", "{text}", "--devices", "cuda:98,99"], "--devices cuda:98: torch finds "),
        (["{model}", "-i", "{text}", "--devices", "tpu"], "--devices: 'tpu' is not a device"),
        (["{model}", "-i", "{text}", "--devices", ","], "--devices names no device"),
        (["{model}", "-i", "{text}", "--device", "cpu,cpu"], "--device cpu,cpu names several devices; give one."),
        (["{model}", "-i", "{text}", "--workers", "0"], "--workers: 0"),
        (["{model}", "-i", "{text}", "--alignment", "firm"], "--alignment: 'firm'"),
        (["{model}", "-i", "{text}", "--format", "xml"], "--format: 'xml'"),
        (["{model}", "-i", "{text}", "--force-decode", "{text}"], "--force-decode and --source are the same"),
        (["{model}", "-i", "{text}", "--force-decode", "{two}"], "text has 1 lines and "),
        (["{model}", "-i", "{text}", "--beam-size", "0"], "--beam-size: 0"),
        (["{model}", "-i", "{text}", "--beam-size", "1", "--normalize", "1"], "means nothing with --beam-size 1"),
        (["{model}", "-i", "{text}", "--beam-size", "many"], "--beam-size"),
        ([], "MODEL"),
    ],
)
def test_a_mistake_is_one_sentence(model, tmp_path, capsys, arguments, message):
    (tmp_path / "text").write_text("the dog\n")
    (tmp_path / "two").write_text("the\n\n")
    names = {"folder": str(tmp_path), "model": model, "text": str(tmp_path / "text"), "two": str(tmp_path / "two")}
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
