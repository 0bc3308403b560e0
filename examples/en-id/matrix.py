"""The matrix of the English-Indonesian example: BLEU and chrF of every model on every domain, as Markdown.

Reads ``OUT/MODEL.DOMAIN.LANGUAGE``, the translations that run.sh has made, and the references beside the text.
Intervals are 95 % of sacrebleu's bootstrap; a model is set beside the baseline on the same draws (Koehn 2004).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from nmt_async.errors import UserError
from nmt_async.translate.lines import text_lines
from nmt_async.writing import write_whole

METRICS = {"BLEU": BLEU, "chrF": CHRF}
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Cell:
    """A model on a domain.

    Attributes:
        half_width: of the 95 % interval.
        differs: from the baseline, with p below `SIGNIFICANT`.
    """

    score: float
    half_width: float
    differs: bool

    def __str__(self) -> str:
        return f"{self.score:.1f} ± {self.half_width:.1f}{'*' * self.differs}"


def scored(models: dict[str, Path], reference: Path, samples: int) -> dict[str, dict[str, Cell]]:
    """By metric and model, what the translations in these files are worth; the first model is the baseline.

    Raises:
        UserError: a file cannot be read, or has another number of lines than the reference.
    """
    references = list(text_lines(reference, "reference"))
    systems = [(name, list(text_lines(path, "translation"))) for name, path in models.items()]
    for name, lines in systems:
        if len(lines) != len(references):
            raise UserError(f"{models[name]} has {len(lines):,} lines but {reference} {len(references):,}.")
    metrics: dict[str, Any] = {name: metric(references=[references]) for name, metric in METRICS.items()}
    _, told = PairedTest(systems, metrics, references=None, test_type="bs", n_samples=samples)()
    columns = [column for heading, column in told.items() if heading != "System"]  # named after the signatures
    return {
        name: {
            model: Cell(each.score, each.ci, each.score != column[0].score and each.p_value < SIGNIFICANT)
            for model, each in zip(models, column, strict=True)
        }
        for name, column in zip(METRICS, columns, strict=True)
    }


def table(metric: str, domains: Sequence[str], cells: dict[str, dict[str, Cell]]) -> str:
    """One metric: a row for each model, a column for each domain and one for their mean.

    Args:
        cells: by domain and model.
    """
    rows = [f"| {metric} | {' | '.join(domains)} | mean |", "|---" * (len(domains) + 2) + "|"]
    for model in cells[domains[0]]:
        here = [cells[domain][model] for domain in domains]
        mean = sum(cell.score for cell in here) / len(here)
        rows.append(f"| {model.replace('-', ' ')} | {' | '.join(map(str, here))} | {mean:.1f} |")
    return "\n".join(rows)


def main() -> int:
    """Exit code 0, or 2 where a file is missing or wrong."""
    parser = argparse.ArgumentParser(description="Prints BLEU and chrF of every model on every domain.")
    parser.add_argument("translations", type=Path, help="the folder of MODEL.DOMAIN.LANGUAGE")
    parser.add_argument("--text", type=Path, required=True, help="the folder of DOMAIN.test.LANGUAGE")
    parser.add_argument("--target", required=True, help="the language translated into")
    parser.add_argument(
        "--models", nargs="+", required=True, help="in the order of the rows; the first is the baseline"
    )
    parser.add_argument("--domains", nargs="+", required=True)
    parser.add_argument("--samples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="a file for the tables, beside standard output")
    options = parser.parse_args()
    try:
        found = {
            domain: scored(
                {model: options.translations / f"{model}.{domain}.{options.target}" for model in options.models},
                options.text / f"{domain}.test.{options.target}",
                options.samples,
            )
            for domain in options.domains
        }
        tables = [
            table(metric, options.domains, {domain: cells[metric] for domain, cells in found.items()})
            for metric in METRICS
        ]
        print("\n\n".join(tables))
        if options.out is not None:
            write_whole(options.out, "\n\n".join(tables))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
