"""Sizes, scores and speeds of a model in float32, in int8 and in few bits, before and after retraining.

    python examples/small-models/table.py RUN DATA --source test.en --reference test.de --out runs/small-models

RUN is a trained run, DATA the prepared folder that it was trained on. What stands behind ``--`` are options of
``train``. Every model, run and translation stays below
``--out``, so that a second start goes on. The table is written to ``table.md`` there and printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nmt_async import Translator
from nmt_async.checkpoints import find_model
from nmt_async.checkpoints.model_folder import PARAMETERS
from nmt_async.score.evaluation import corpus_scores

QUANTISED = ((8, "linear"), (4, "log"), (4, "linear"), (3, "log"), (3, "linear"), (2, "log"), (2, "linear"))
NMT_ASYNC = [sys.executable, "-c", "from nmt_async.cli.start import main; main()"]
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Row:
    """A model, and how it is computed.

    Attributes:
        name: in the table.
        model: its folder, or that of a run.
        engine, precision: as ``translate`` has them.
        bytes: of its parameters, as they lie on the disk.
    """

    name: str
    model: Path
    engine: str
    precision: str
    bytes: int


def command(*words: object) -> None:
    """Runs ``nmt-async`` and shows what is run."""
    typed = [str(word) for word in words]
    print("nmt-async", *typed, file=sys.stderr, flush=True)
    subprocess.run([*NMT_ASYNC, *typed], check=True, stdout=sys.stderr)


def made(folder: Path, make: Callable[[], None]) -> Path:
    """The folder, made where it is not there yet."""
    if not folder.exists():
        make()
    return folder


def parameters_of(model: Path) -> int:
    return (find_model(model) / PARAMETERS).stat().st_size


def rows(asked: argparse.Namespace) -> Iterator[Row]:
    """All models of the table; those that are not there yet are made."""
    run, out = asked.run, asked.out
    quantised = [each for each in QUANTISED if each[0] in asked.bits and each[1] in asked.schemes]
    yield Row("float32", run, "torch", "float32", parameters_of(run))
    for precision in ("float32", "int8"):
        exported = out / f"ctranslate2-{precision}"
        form = ("--format", "ctranslate2", "--quantization", precision)
        made(exported, lambda form=form, exported=exported: command("export", run, exported, *form))
        size = (exported / "model.bin").stat().st_size
        yield Row(f"{precision}, CTranslate2", run, "ctranslate2", precision, size)
    yield Row("int8, torch (float32 on the disk)", run, "torch", "int8", parameters_of(run))
    for bits, scheme in quantised:
        model = out / f"{bits}-{scheme}"
        form = ("--bits", bits, "--scheme", scheme)
        made(model, lambda form=form, model=model: command("quantize", run, model, *form))
        yield Row(f"{bits}-bit {scheme}", model, "torch", "float32", parameters_of(model))
    further: list[tuple[str, tuple[object, ...]]] = [("float32, trained as long again", ())]
    further += [
        (f"{bits}-bit {scheme}, retrained", ("--quantize-bits", bits, "--quantize-scheme", scheme))
        for bits, scheme in quantised
        if bits <= 4
    ]
    for name, options in further:
        model = out / ("retrained" + "".join(f"-{word}" for word in options[1::2]))
        begun = ("--init-from", run, "--stop-after", asked.stop_after)
        command("train", asked.data, "--out", model, *begun, *options, *asked.training, "--quiet")
        yield Row(name, model, "torch", "float32", parameters_of(model))


def peak_memory(row: Row, source: Path, out: Path) -> float:
    """MiB of a process that translates ``source`` on one thread, at its peak."""
    words = [*NMT_ASYNC, "translate", str(row.model), "--input", str(source), "--output", str(out / "memory.de")]
    words += ["--engine", row.engine, "--precision", row.precision, "--device", "cpu", "--threads", "1", "--quiet"]
    asked = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, stdout=subprocess.PIPE, text=True)
    return int(asked.stdout) / 1024


def main() -> None:
    """Makes what is missing, measures, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/small-models"))
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2], help="of which models the table has")
    parser.add_argument("--schemes", nargs="+", default=["log", "linear"])
    parser.add_argument("--stop-after", default="1Mt", help="how long to retrain (default: 1Mt)")
    parser.add_argument("--rounds", type=int, default=3, help="of translations, which are timed")
    parser.add_argument("--beam-size", type=int, default=4)
    typed, training = sys.argv[1:], []
    if "--" in typed:  # options of train, which argparse would take for its own
        typed, training = typed[: typed.index("--")], typed[typed.index("--") + 1 :]
    asked = parser.parse_args(typed)
    asked.training = training
    asked.out.mkdir(parents=True, exist_ok=True)
    table = list(rows(asked))
    lines = asked.source.read_text(encoding="utf-8").splitlines()
    references = asked.reference.read_text(encoding="utf-8").splitlines()
    translators = [Translator(row.model, device="cpu", threads=1, engine=row.engine) for row in table]
    seconds: list[list[float]] = [[] for _ in table]
    found: list[list[str]] = [[] for _ in table]
    for _ in range(asked.rounds):  # in turns, so that what else the machine does strikes all of them
        for number, (row, translator) in enumerate(zip(table, translators, strict=True)):
            begin = time.monotonic()
            translations = translator.translate(lines, beam_size=asked.beam_size, precision=row.precision)
            seconds[number].append(time.monotonic() - begin)
            found[number] = [translation.text for translation in translations]
    written = [
        "| model | bytes | times smaller | BLEU | chrF | sentences a second | peak MiB of translate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, times, hypotheses in zip(table, seconds, found, strict=True):
        bleu, chrf = corpus_scores(hypotheses, references, metrics=("BLEU", "chrF"))
        cells = [
            row.name, f"{row.bytes:,}", f"{table[0].bytes / row.bytes:.1f}", f"{bleu.score:.1f}", f"{chrf.score:.1f}",
            f"{len(lines) / statistics.median(times):.1f}", f"{peak_memory(row, asked.source, asked.out):.0f}",
        ]  # fmt: skip
        written.append(f"| {' | '.join(cells)} |")
    text = "\n".join(written) + "\n"
    (asked.out / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
