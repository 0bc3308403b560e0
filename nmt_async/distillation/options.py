"""The options of the command ``distil``. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.options import NOT_GIVEN, check_together, option
from nmt_async.score.options import check_chosen
from nmt_async.search.options import GREEDY
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.text.options import PrepareOptions
from nmt_async.translate.options import FILES, ComputingOptions, CorpusOptions

CHOICE = "What is kept"
DATA = "The student's data"

WITHOUT_EFFECT = {
    "source", "strict", "out", "text", "overwrite", "reference", "backward", "threshold", "best_share", "valid_source",
    "valid_target", "valid_tsv", "vocab_size", *(field.name for field in dataclasses.fields(ComputingOptions)),
    "workers", "devices",
}  # fmt: skip
"""Fields that do not change what a teacher makes of a line, or are compared in another way."""


@dataclass(frozen=True)
class DistilOptions(CorpusOptions):
    """How a text becomes training data by the translations of teachers.

    Raises:
        UserError: a value that makes no sense.
    """

    source: Path = option(
        STANDARD_INPUT, "Text in the source language, plain, gzip or zstd; - for standard input.",
        group=FILES, flags=("--source", "-s"), metavar="FILE",
    )  # fmt: skip
    out: Path | None = option(
        None, "Folder of the student's data, for train; it appears when it is complete.", group=FILES, metavar="DIR"
    )
    text: Path | None = option(
        None, "Folder for the translations, which grows line by line, and for the pairs that are kept; an interrupted "
        "command goes on there (default: --out with .text behind it).",
        group=FILES, metavar="DIR",
    )  # fmt: skip
    overwrite: bool = option(
        False, "Replace the data that are there, as for another --best-share; translations are kept.", group=FILES,
        flags=("--overwrite",),
    )  # fmt: skip
    reference: Path | None = option(
        None, "Translations by people, line by line; of the beam the candidate nearest to them, by sentence BLEU, is "
        "taken instead of the most probable one.",
        group=CHOICE, metavar="FILE", only_with={"output_sampling": NOT_GIVEN},
    )  # fmt: skip
    backward: Path | None = option(
        None, "Model from target to source: pairs are judged by dual conditional cross-entropy, as by score --backward "
        "(default: by the teacher's probability of a subword, the geometric mean).",
        group=CHOICE, metavar="RUN",
    )  # fmt: skip
    best_share: float | None = option(
        None, "Keep this share of the pairs, those judged best: 0.9 drops the worst tenth (default: all).", group=CHOICE
    )
    threshold: float | None = option(
        None, "Keep pairs that are judged with at least this, from 0 to 1.", group=CHOICE,
        only_with={"best_share": NOT_GIVEN},
    )  # fmt: skip
    valid_source: tuple[Path, ...] = option(
        (), "Source text for validation, which is not distilled.", group=DATA, metavar="FILE"
    )
    valid_target: tuple[Path, ...] = option((), "Its reference translation.", group=DATA, metavar="FILE")
    valid_tsv: tuple[Path, ...] = option(
        (), "Source and target in one file, source<TAB>target.", group=DATA, metavar="FILE"
    )
    vocab_size: int | None = option(
        None, "Learn so many subwords from the pairs that are kept (default: the teacher's vocabulary).", group=DATA
    )

    def __post_init__(self) -> None:
        check_together(self)
        super().__post_init__()
        check_chosen(self.threshold, self.best_share)
        if self.reference is not None and self.beam_size == GREEDY:
            raise UserError(f"--reference chooses among candidates, and --beam-size {GREEDY} finds one; leave one out.")

    def prepared_from(self, source: Path, target: Path, vocabularies: tuple[Path, ...]) -> PrepareOptions:
        """The options of ``prepare`` that make the student's data of the pairs that are kept.

        Args:
            vocabularies: the teacher's: one for both languages, or that of the source and that of the target.
        """
        options = PrepareOptions(
            out=self.out, train_source=(source,), train_target=(target,), valid_source=self.valid_source,
            valid_target=self.valid_target, valid_tsv=self.valid_tsv, overwrite=self.overwrite,
            threads=self.threads or 0,
        )  # fmt: skip
        if self.vocab_size is not None:
            return replace(options, vocab_size=self.vocab_size)
        if len(vocabularies) == 1:
            return replace(options, vocab=vocabularies[0])
        return replace(options, source_vocab=vocabularies[0], target_vocab=vocabularies[1])
