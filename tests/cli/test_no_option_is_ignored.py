"""No command accepts an option and ignores it: what a real use does not read is refused there in a sentence.

Each command is run for real, in the settings in which others of its options matter. The test notes which options the
program reads while it works (not while it checks or copies them). An option that is not read in a setting must be
refused when it is typed there too; one that is read in no setting of its command does nothing at all.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from nmt_async.cli import bench, bench_decode, bench_prepare
from nmt_async.cli.declare import CommonOptions
from nmt_async.cli.main import COMMANDS, module_of, run
from small_model import save_small_model

from nmt_async.options import converted, flag_of, key_of, matters, value_type
from nmt_async.quantity import Quantity
from nmt_async.study.compare_options import CompareOptions
from nmt_async.training.options import TrainOptions

COPYING = {"__post_init__", "train_options", "settled", "_check_same"}
NEAR = 6


def reading() -> bool:
    """Whether whoever asks for an attribute just now wants to work with it."""
    frame = sys._getframe(2)
    if frame.f_code.co_filename.endswith(("nmt_async/options.py", "cli/declare.py", "/dataclasses.py", "/copy.py")):
        return False
    for _ in range(NEAR):
        if frame is None:
            return True
        if frame.f_code.co_name in COPYING:
            return False
        frame = frame.f_back
    return True


@contextmanager
def reads(*declarations: type) -> Iterator[set[str]]:
    """The fields of options that are read inside."""
    found: set[str] = set()
    names = {field.name for declaration in declarations for field in dataclasses.fields(declaration)}

    def noting(options: Any, name: str) -> Any:
        if name in names and reading():
            found.add(name)
        return object.__getattribute__(options, name)

    noted = set(declarations)
    for declaration in noted:
        declaration.__getattribute__ = noting
    try:
        yield found
    finally:
        for declaration in noted:
            del declaration.__getattribute__


TINY = "--dim-emb 16 --heads 2 --dim-ffn 32 --enc-depth 1 --dec-depth 1 --mini-batch-words 300"
SHORT = f"{TINY} --cpu-threads 1 --stop-after 2 --valid-freq 2 --valid-sentences 2 --valid-beam-size 1"
VIRTUAL = f"train DATA --out NEW --cluster simulated --workers 2 {SHORT}"
SETTINGS = {
    "prepare": [
        "prepare --train-source EN --train-target DE --vocab-size 400 --out NEW",
        "prepare --corpora CORPORA --vocab-size 400 --out NEW",
        "prepare --train-source SRC --train-target TRG --vocab SPM --out NEW",
        "prepare --train-source SRC --train-target TRG --source-vocab SPM --target-vocab SPM --out NEW",
    ],
    "train": [
        VIRTUAL,
        VIRTUAL.replace("--cluster simulated", "--cluster processes"),
        f"{VIRTUAL} --corpus-weights one=1,other=3".replace("DATA", "MIXED"),
        f"{VIRTUAL} --batch-memory 8".replace("--mini-batch-words 300", ""),
        f"{VIRTUAL} --lr-decay linear",
        f"{VIRTUAL} --lr-decay none",
        f"{VIRTUAL} --metric bleu",
        f"{VIRTUAL} --no-valid-translate".replace("--valid-sentences 2 --valid-beam-size 1", ""),
        f"{VIRTUAL} --model rnn".replace("--heads 2 --dim-ffn 32", "--dim-rnn 16"),
        f"{VIRTUAL} --norm none --init t-fixup --lr-warmup 0 --lr-decay-start 9",
        f"{VIRTUAL} --sync-mode async",
        f"{VIRTUAL} --oldest-push 1 --older-pushes restart",
        f"{VIRTUAL} --max-staleness 1",
        f"{VIRTUAL} --sync-mode adaptive --accumulate-first 2 --oldest-push 1 --older-pushes restart",
        f"{VIRTUAL} --sync-mode sync --fastest 1 --older-pushes restart",
        f"{VIRTUAL} --sync-mode sync --accumulate 2 --balance",
        f"{VIRTUAL} --weight-prediction last-step --prediction-updates 2",
        f"{VIRTUAL} --weight-prediction none",
        f"{VIRTUAL} --init-from RUN",
        f"{VIRTUAL} --quantize-bits 4",
        f"{VIRTUAL} --optimizer adamw",
        f"{VIRTUAL} --optimizer muon --muon-rows 8",
        f"{VIRTUAL} --optimizer adan",
        f"{VIRTUAL} --optimizer lion",
        f"{VIRTUAL} --optimizer sgd",
        f"{VIRTUAL} --optimizer sgd --momentum 0",
        *(f"{VIRTUAL} --staleness-rule {rule}" for rule in ("scale", "decay", "gap-aware", "delay-compensated")),
        f"{VIRTUAL} --delay-feedback 0.5",
        f"{VIRTUAL} --momentum-lookahead dana-slim --optimizer adam",
        f"{VIRTUAL} --momentum-lookahead dana --optimizer sgd",
    ],
    "translate": [
        "translate MODEL -i SRC -o OUT",
        "translate MODEL -i SRC -o OUT --beam-size 1",
        "translate MODEL -i SRC -o OUT --output-sampling full",
        "translate MODEL -i SRC -o OUT --output-sampling full --n-best",
    ],
    "evaluate": [
        "evaluate MODEL --source SRC --reference TRG",
        "evaluate --hypothesis SRC --reference TRG",
        "evaluate MODEL --source SRC --reference TRG --output-sampling full",
    ],
    "score": [
        "score MODEL -s SRC -t TRG",
        "score MODEL -s SRC -t TRG --summary perplexity",
        "score MODEL -s SRC -t LIST --n-best",
        "score MODEL -s SRC -t TRG --backward MODEL",
        "score MODEL -s SRC -t TRG --backward MODEL --threshold 0.5 --kept-source OUT --kept-target OUT2",
        "score MODEL -s SRC -t TRG --word-scores",
    ],
    "distil": [
        "distil MODEL -s SRC --out NEW --max-length-factor 1",
        "distil MODEL -s SRC --out NEW --reference TRG --threshold 0.0001 --max-length-factor 1",
        "distil MODEL -s FEW --out NEW --output-sampling full --vocab-size 80 --max-length-factor 1",
    ],
    "average": ["average RUN --last 1 --out NEW", "average RUN --best 1 --out NEW"],
    "quantize": ["quantize MODEL NEW"],
    "export": [
        "export MODEL NEW",
        "export MODEL NEW --format ctranslate2",
        "export MODEL NEW --format ctranslate2 --verify SRC --verify-share 0",
        "export MODEL NEW --format marian-bin --verify SRC --verify-share 0",
    ],
    "import": ["import MARIAN --vocabs SPM SPM --out NEW"],
    "simulate": [
        "simulate --workers 1,2 --modes sync",
        "simulate --workers 1,2 --modes sync --data DATA --out NEW",
        "simulate --workers 2 --nodes 1,2 --modes hybrid:W --between sync --link-speed 1Gbit --link-latency 1",
        "simulate --workers 2 --nodes 2 --modes async --between local --local-updates 4 --outer-fragments 2",
    ],
    "report": ["report RUN --out NEW"],
    "watch": ["watch RUN --once"],
    "replay": ["replay RUN"],
    "compare": [
        f"compare DATA --cluster simulated --workers 2 --budget 2kt --validations 1 --seeds 1 --modes sync "
        f"--intervals sentences --out NEW {TINY}",
        f"compare DATA --cluster simulated --workers 2 --budget 2kt --validations 1 --seeds 1 --modes sync,hybrid "
        f"--intervals sentences --out NEW {TINY}",
    ],
    "study": ["study STUDY DATA --out NEW"],
    "doctor": ["doctor DATA --no-trial"],
    "bench training": [
        f"bench training DATA --workers 1 --rounds 1 --batches 2 --against plain --cpu-threads 1 {TINY}"
    ],
    "bench decode": ["bench decode MODEL --input SRC --engines torch --rounds 1 --beam-size 1"],
    "bench prepare": ["bench prepare --pairs 300 --rounds 1"],
}
"""Real uses of each command."""


@dataclasses.dataclass
class Places:
    """Files and folders that the words of `SETTINGS` stand for."""

    known: dict[str, Path]
    fresh: Path

    def words(self, typed: str) -> list[str]:
        """With paths in the place of names; OUT and NEW are where nothing is yet."""
        where = self.fresh / str(len(list(self.fresh.iterdir())))
        where.mkdir()
        new = {"NEW": where / "new", "OUT": where / "out", "OUT2": where / "out2"}
        return [str({**self.known, **new}.get(word, word)) for word in typed.split()]


OF_THE_PLANNED_RUN = {field.name for field in dataclasses.fields(TrainOptions)}
WITHOUT_READING = {
    "compare": {"intervals"},  # says yes to what comes of one seed
}
"""Options that do what they are for without being read."""


@pytest.fixture(scope="module")
def places(small_data: Path, real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("uses")
    (folder / "study.yaml").write_text(STUDY)
    model = save_small_model(folder)
    (folder / "fresh").mkdir()
    source, target, hypotheses = folder / "source", folder / "target", folder / "list"
    source.write_text("the dog sees the cat\na bird in the garden\n" * 20)
    target.write_text("a dog runs\nthe small bird runs\n" * 20)
    hypotheses.write_text("".join(f"{line} ||| a dog ||| F0= -1 ||| -1\n" for line in range(40)))
    assert run(["export", str(model), str(folder / "marian"), "--quiet"]) == 0
    text = small_data.parent / "text"
    few = folder / "few"
    few.write_text("".join((text / "train.en").read_text().splitlines(keepends=True)[:60]))
    corpora = folder / "corpora.yaml"
    files = f"source: {text / 'train.en'}, target: {text / 'train.de'}, valid-source: {text / 'valid.en'}, "
    files += f"valid-target: {text / 'valid.de'}"
    corpora.write_text(
        f"corpora:\n- {{name: one, {files}, tag: __one__}}\n- {{name: other, {files}, tag: __other__}}\n"
    )
    mixed = folder / "mixed"
    assert run(["prepare", "--corpora", str(corpora), "--vocab-size", "400", "--out", str(mixed), "--quiet"]) == 0
    known = {
        "DATA": small_data, "EN": text / "train.en", "DE": text / "train.de", "RUN": real_run, "MODEL": model,
        "SRC": source, "TRG": target, "LIST": hypotheses, "SPM": folder / "vocabulary.model",
        "MARIAN": folder / "marian" / "model.npz", "STUDY": folder / "study.yaml", "CORPORA": corpora, "MIXED": mixed,
        "FEW": few,
    }  # fmt: skip
    return Places(known, folder / "fresh")


def options_of(command: str) -> Any:
    others = {"bench decode": bench_decode, "bench prepare": bench_prepare}
    return (others.get(command) or module_of(command.split()[0])).OPTIONS


STUDY = """
base: {cluster: simulated, workers: 2, dim-emb: 16, heads: 2, dim-ffn: 32, enc-depth: 1, dec-depth: 1,
  mini-batch-words: 300, valid-sentences: 2}
conditions: {only sync: {sync-mode: sync}}
sizes: {core: {budget: 1kt, validations: 1, seeds: [1], conditions: ["*"]}}
"""


TYPED = {"model": "rnn", "weights": "1", "model_weights": "1", "output_sampling": "full", "metric": "chrf",
         "worker_timeout": "7min", "bits": "3", "quantize_bits": "3", "corpus_weights": "one=1,other=2",
         "weight_prediction": "last-step"}  # fmt: skip
"""What is typed for an option where its declaration does not tell what can be."""


def other_value(field: dataclasses.Field[Any], hint: Any) -> list[str]:
    """The option typed with another value than its default."""
    flag, (kind, _) = flag_of(field), value_type(hint)
    if kind is bool:
        return [f"--no-{key_of(field)}" if field.default else flag]
    if field.name in TYPED:
        return [flag, TYPED[field.name]]
    if field.metadata["choices"]:
        return [flag, next(each for each in field.metadata["choices"] if each != field.default)]
    if kind in (int, float):
        return [flag, str(kind(7 if field.default != 7 else 8) if kind is int else 0.75)]
    return [flag, {Path: "somewhere", str: "something", Quantity: "7"}.get(kind, "7")]


def refused(words: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the command says of the option that it cannot be typed there."""
    code, said = run(words), capsys.readouterr().err
    named = {flag, flag.replace("--", "--no-", 1)}.intersection(re.findall(r"[\w-]+", said))
    return code == 2 and "means nothing" in said and bool(named)


@pytest.mark.parametrize("command", SETTINGS)
def test_an_option_is_read_or_refused(command: str, places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    declaration = options_of(command)
    hints, fields = get_type_hints(declaration), {field.name: field for field in dataclasses.fields(declaration)}
    if command == "doctor":
        fields = {name: field for name, field in fields.items() if name not in OF_THE_PLANNED_RUN}
    nowhere = {"quiet", *fields}
    for setting in SETTINGS[command]:
        with reads(declaration, CommonOptions, TrainOptions) as found:
            assert run([*places.words(setting), "--quiet"]) == 0, capsys.readouterr().err
        capsys.readouterr()
        nowhere -= found
        for name in fields.keys() - found - WITHOUT_READING.get(command, set()):
            if command == "compare" and name in OF_THE_PLANNED_RUN:
                continue  # the next test's
            words = other_value(fields[name], hints[name])
            assert words[0] not in setting.split(), f"{setting} does not read {words[0]}, which is typed there"
            assert refused([*places.words(setting), *words], flag_of(fields[name]), capsys), (
                f"{setting} neither reads {' '.join(words)} nor refuses it"
            )
    others = OF_THE_PLANNED_RUN if command != "train" else set()  # what bench and compare have of train's
    assert nowhere <= others | WITHOUT_READING.get(command, set()), "no use of the command reads them"


def test_compare_hands_on_what_it_does_not_read() -> None:
    hints = get_type_hints(CompareOptions)
    for field in dataclasses.fields(CompareOptions):
        if field.name in OF_THE_PLANNED_RUN - {"out"}:
            typed = other_value(field, hints[field.name])
            value = typed[-1] if len(typed) > 1 else not field.default
            options = converted(CompareOptions, {"budget": "2Mt", key_of(field): value}, "here")
            assert str(CompareOptions(**options).base()[key_of(field)]) in (str(value), f"{value}u", f"{value}.0")


def test_every_command_has_its_settings() -> None:
    assert set(SETTINGS) - {"bench training", "bench decode", "bench prepare"} == set(COMMANDS) - {"bench"}
    assert {f"bench {each.name}" for each in bench.group.registered_commands} <= set(SETTINGS)


@pytest.mark.parametrize("command", SETTINGS)
def test_a_declared_dependence_is_refused_where_it_does_not_hold(
    command: str, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the declarations alone: each option, in each setting in which none of its situations is."""
    declaration = options_of(command)
    for setting in SETTINGS[command]:
        assert run([*places.words(setting), "--dump-config"]) == 0
        values = yaml.safe_load(capsys.readouterr().out)
        options = declaration(**converted(declaration, values, setting))
        hints = get_type_hints(declaration)
        for field in dataclasses.fields(declaration):
            if not matters(options, field):
                words = other_value(field, hints[field.name])
                assert refused([*places.words(setting), *words], flag_of(field), capsys), words
