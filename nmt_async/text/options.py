"""The options of the command ``prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nmt_async.options import NOT_GIVEN, option
from nmt_async.text.cleaning import RATIO_APPLIES_FROM, Rules

LEARNT = ({"vocab": NOT_GIVEN, "source_vocab": NOT_GIVEN}, {"vocab": NOT_GIVEN, "target_vocab": NOT_GIVEN})
"""Where a vocabulary is learnt, or both are."""

TEXT, VOCABULARY, CLEANING, RUN = "Text", "Vocabulary", "Cleaning of the training text", "Run"


@dataclass(frozen=True)
class PrepareOptions:
    """What ``nmt-async prepare`` understands."""

    out: Path | None = option(None, "Folder to write; it appears when it is complete.", group=TEXT, metavar="DIR")
    corpora: Path | None = option(
        None, "Several corpora, each with its files, a tag and a weight, declared in this YAML file.", group=TEXT,
        metavar="FILE", excludes=(
            "train_source", "train_target", "train_tsv", "valid_source", "valid_target", "valid_tsv",
        ),
    )  # fmt: skip
    train_source: tuple[Path, ...] = option(
        (), "Source text, a sentence a line: plain, .gz, .zst or - for standard input; repeat it for more files.",
        group=TEXT, metavar="FILE",
    )  # fmt: skip
    train_target: tuple[Path, ...] = option(
        (), "Its translation, line by line; as many files as --train-source.", group=TEXT, metavar="FILE"
    )
    train_tsv: tuple[Path, ...] = option(
        (), "Source and target in one file, source<TAB>target; may be repeated.", group=TEXT, metavar="FILE"
    )
    valid_source: tuple[Path, ...] = option((), "Source text for validation.", group=TEXT, metavar="FILE")
    valid_target: tuple[Path, ...] = option((), "Its reference translation.", group=TEXT, metavar="FILE")
    valid_tsv: tuple[Path, ...] = option(
        (), "Source and target in one file, source<TAB>target.", group=TEXT, metavar="FILE"
    )

    vocab_size: int = option(8000, "How many subwords each vocabulary learns.", group=VOCABULARY)
    vocab_type: str = option(
        "unigram", "How to learn the subwords.", group=VOCABULARY, choices=("unigram", "bpe"), only_with=LEARNT
    )
    separate_vocabs: bool = option(
        False, "One vocabulary for each language instead of a joint one.", group=VOCABULARY,
        flags=("--separate-vocabs",),
    )  # fmt: skip
    vocab: Path | None = option(
        None, "Use this SentencePiece model for both languages.", group=VOCABULARY, metavar="FILE"
    )
    source_vocab: Path | None = option(
        None, "Use this SentencePiece model for the source.", group=VOCABULARY, metavar="FILE"
    )
    target_vocab: Path | None = option(
        None, "Use this SentencePiece model for the target.", group=VOCABULARY, metavar="FILE"
    )
    vocab_sample: int = option(
        1_000_000, "Learn each vocabulary from so many lines, drawn evenly from all; 0: from all. Memory holds "
        "them, at about 25 bytes a character.",
        group=VOCABULARY, only_with=LEARNT,
    )  # fmt: skip
    character_coverage: float = option(
        0.9995, "Share of the text's characters that the vocabulary must know; the rarest become <unk>.",
        group=VOCABULARY, only_with=LEARNT,
    )  # fmt: skip
    seed: int = option(1, "Seed of the sample from which the vocabulary is learnt.", group=VOCABULARY, only_with=LEARNT)

    max_length: int = option(
        256, "Remove pairs with more subwords than this on one side, end mark included; 0: keep them.", group=CLEANING
    )
    max_length_ratio: float = option(
        4.0, f"Remove pairs whose longer side ({RATIO_APPLIES_FROM} subwords or more) has more than this many times "
        "the subwords of the shorter side; 0: keep them.", group=CLEANING,
    )  # fmt: skip
    keep_duplicates: bool = option(
        False, "Keep pairs that occurred before.", group=CLEANING, flags=("--keep-duplicates",)
    )
    keep_empty: bool = option(False, "Keep pairs with an empty side.", group=CLEANING, flags=("--keep-empty",))
    keep_invalid_utf8: bool = option(
        False, "Keep lines that are not UTF-8; U+FFFD takes the place of the wrong bytes.", group=CLEANING,
        flags=("--keep-invalid-utf8",),
    )  # fmt: skip
    keep_control_characters: bool = option(
        False, "Keep lines with control characters other than the tab.", group=CLEANING,
        flags=("--keep-control-characters",),
    )  # fmt: skip

    threads: int = option(0, "Threads for encoding; 0: one for each core.", group=RUN)
    overwrite: bool = option(
        False, "Replace the prepared folder that is there.", group=RUN, flags=("--overwrite",)
    )  # fmt: skip

    @property
    def rules(self) -> Rules:
        """The cleaning these options ask for."""
        return Rules(
            invalid_utf8=not self.keep_invalid_utf8, control_characters=not self.keep_control_characters,
            empty=not self.keep_empty, max_length=self.max_length, max_length_ratio=self.max_length_ratio,
        )  # fmt: skip
