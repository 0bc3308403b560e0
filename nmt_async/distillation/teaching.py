"""``distil``: a text, translated by teachers, becomes the data that a student is trained on.

Sequence-level knowledge distillation (Kim & Rush 2016, EMNLP, arXiv:1606.07947). The student learns from the teacher's
translations instead of people's. They are more alike, so that a small model can learn them. With references, of the
beam the candidate nearest to the reference is taken (section 3.3 there, sequence-level interpolation; by BLEU there).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from nmt_async.checkpoints import find_model
from nmt_async.checkpoints.model_folder import (
    JOINT_VOCABULARY,
    PARAMETERS,
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    model_hashes,
)
from nmt_async.checksums import sha256_of
from nmt_async.distillation.options import WITHOUT_EFFECT, DistilOptions
from nmt_async.distillation.translations import Pair, TranslationsFile
from nmt_async.errors import RunFailure, UserError
from nmt_async.options import key_of, to_mapping
from nmt_async.progress import Progress, SilentProgress
from nmt_async.score.filtering import chosen
from nmt_async.score.options import ScoringOptions
from nmt_async.score.scorer import Scorer
from nmt_async.text.corpus import STANDARD_INPUT, corpus, input_files
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import check_options, prepare
from nmt_async.text.prepared import MANIFEST, PreparedData, read_manifest
from nmt_async.translate.files import devices_of, shared_out, translator_of
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.lines import TextFile, output_lines, pairs_of, text_lines, warn_on_stderr
from nmt_async.translate.translator import Candidate
from nmt_async.writing import check_free

TRANSLATIONS = "translations.jsonl"
KEPT_SOURCE, KEPT_TARGET = "source.txt", "target.txt"

Line = tuple[str, str | None]
"""A line of the text, and its reference where there is one."""


@dataclass(frozen=True)
class Distilled:
    """What became of a text.

    Attributes:
        lines: of it.
        kept: pairs whose judgement was good enough; cleaning takes some of them, too.
        lowest: the judgement of the worst that is kept.
        text: the folder with the translations and the pairs that are kept.
        data: the student's.
    """

    lines: int
    kept: int
    lowest: float
    text: Path
    data: PreparedData


@dataclass(frozen=True)
class TeacherBuilder:
    """Makes, in a process of its own, what turns windows of lines into pairs; see `translate.processes.Builder`."""

    teachers: tuple[Path, ...]
    options: DistilOptions

    def __call__(self, device: str, warn: Callable[[str], None]) -> Callable[[list[Line], int], list[Pair]]:
        """The teachers, on ``device``, and who judges them."""
        options, backward = self.options, None
        translator = translator_of(options, self.teachers, device, warn)
        wanted = options.beam_size if options.reference is not None else 1
        lines = translator.line_translator(options, wanted, scores=WantedScores.OF_TRANSLATIONS)
        if options.backward is not None:
            scorer = Scorer(options.backward, device=device, threads=options.threads, warn=warn)
            at_once = {name: getattr(options, name) for name in ("mini_batch", "mini_batch_words", "maxi_batch")}
            backward = scorer.line_scorer(ScoringOptions(**at_once), sides=("translation", "source"))

        def pairs(window: list[Line], first: int) -> list[Pair]:
            translations = lines.translate_window([(line, "") for line, _ in window], first)
            chosen = [_nearest(each.n_best, line[1]) for each, line in zip(translations, window, strict=True)]
            back: Sequence[float | None] = [None] * len(window)
            if backward is not None:
                turned = [(candidate.text, line) for candidate, (line, _) in zip(chosen, window, strict=True)]
                back = [scored.cross_entropy for scored in backward.score_window(turned, first)]
            return [
                Pair(*line, candidate.text, -candidate.score / (len(candidate.tokens) + 1), its, translation.cut)
                for line, translation, candidate, its in zip(window, translations, chosen, back, strict=True)
            ]

        return pairs


def _nearest(candidates: Sequence[Candidate], reference: str | None) -> Candidate:
    """The most probable candidate, or that nearest to the reference; of equally near ones the most probable."""
    if reference is None or len(candidates) == 1:
        return candidates[0]
    chrf = CHRF()
    return max(candidates, key=lambda candidate: chrf.sentence_score(candidate.text, [reference]).score)


def distil(options: DistilOptions, teachers: Sequence[Path], progress: Progress | None = None) -> Distilled:
    """Translates the text, keeps the best pairs, and writes the prepared folder ``options.out``.

    What was translated before is taken up. The translations stay, so that the same text can be filtered anew.

    Raises:
        UserError: options, models or files do not go together, or nothing is kept.
        RunFailure: processes died again and again, or writing failed.
    """
    progress = progress or SilentProgress()
    if options.out is None:
        raise UserError("--out is missing: name the folder to write.")
    out = options.out.resolve()
    text = out.with_name(out.name + ".text") if options.text is None else options.text.resolve()
    devices = devices_of(options)
    hashes = [model_hashes(find_model(teacher)) for teacher in teachers]
    made_with = _made_with(options, hashes)
    prepared = options.prepared_from(text / KEPT_SOURCE, text / KEPT_TARGET, _vocabularies(teachers[0], hashes[0]))
    _check_before_hours(options, prepared, out, text)
    source, lines = _lines(options)
    try:
        text.mkdir(parents=True, exist_ok=True)
        translations = TranslationsFile(text / TRANSLATIONS, made_with, progress.note)
    except OSError as error:
        raise UserError(f"--text: {text} cannot be written ({error.strerror}); name another folder.") from None
    try:
        with closing(translations):
            builder = TeacherBuilder(tuple(teachers), options)
            total = _translate(builder, devices, source, lines, translations, progress)
            kept, lowest = _keep(options, prepared, translations, total)
            data = prepare(prepared, progress)
    finally:
        with suppress(OSError):  # it is empty if nothing was translated
            text.rmdir()
    return Distilled(total, kept, lowest, text, data)


def _check_before_hours(options: DistilOptions, prepared: PrepareOptions, out: Path, text: Path) -> None:
    """Raises UserError where the student's data could not be written after hours of translating, or something of the
    user's would be."""
    check_options(prepared)
    if out == text or out in text.parents or text in out.parents:
        raise UserError(f"--text and --out must lie apart, and {text} and {out} do not; name another --text.")
    if text.is_dir() and any(text.iterdir()) and not (text / TRANSLATIONS).exists():
        raise UserError(f"--text: {text} has files that distil did not write; name a new folder.")
    valid = corpus("valid", options.valid_source, options.valid_target, options.valid_tsv)
    read = {"--source": options.source, "--reference": options.reference}
    for flag, path in [*read.items(), *((file.option, file.path) for file in input_files(valid))]:
        if path is not None and path.resolve().parent == text:
            raise UserError(f"{flag}: {path} is in {text}, where distil writes; name another --text.")
        if path == STANDARD_INPUT and flag != "--source":
            raise UserError(f"{flag}: standard input is for --source; name a file.")
    for file in input_files(valid):
        file.check()
    for part in valid:
        for _ in part.blocks():
            pass
    if not (out / MANIFEST).exists():
        check_free(out, "--out: ")
    elif options.overwrite:
        read_manifest(out)
    elif not _made_of(out, (text / KEPT_SOURCE, text / KEPT_TARGET)):
        raise UserError(f"--out: {out} was prepared from other text; choose another --out, or pass --overwrite.")


def _made_of(out: Path, files: Sequence[Path]) -> bool:
    """Whether the data in ``out`` were prepared from these files, as they are now."""
    noted = {each["sha256"] for each in read_manifest(out)["inputs"]}
    return all(file.exists() and sha256_of(file) in noted for file in files)


def _lines(options: DistilOptions) -> tuple[TextFile, Iterator[Line]]:
    source = TextFile(options.source, "--source", strict=options.strict, warn=warn_on_stderr)
    if options.reference is None:
        return source, ((line, None) for line in source)
    if options.reference == options.source:
        raise UserError(f"--reference and --source are both {options.source}; name another file for one of them.")
    reference = TextFile(options.reference, "--reference", strict=options.strict, warn=warn_on_stderr)
    return source, pairs_of(source, reference)


def _translate(
    builder: TeacherBuilder, devices: list[str], source: TextFile, lines: Iterator[Line],
    translations: TranslationsFile, progress: Progress,
) -> int:  # fmt: skip
    """Adds the pairs of the lines that are not translated yet; how many pairs there are then."""
    _skip_translated(lines, source, translations)
    skipped, total = source.read, translations.count
    if total:
        progress.note(f"{total:,} lines were translated before")
    with (
        progress.stage("translate", None if source.size is None else max(1, source.size - skipped)) as step,
        closing(shared_out(builder, builder.options, devices, lines, source.at_hand)) as pairs,
    ):
        for number, pair in enumerate(pairs, 1):
            try:
                translations.append(pair)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise RunFailure(
                    f"{translations.path} cannot be written ({why}); solve that, and run the same command again."
                ) from None
            total += 1
            step(source.read - skipped, number)
    return total


def _skip_translated(lines: Iterator[Line], source: TextFile, translations: TranslationsFile) -> None:
    """Goes past the lines that were translated before.

    Raises:
        UserError: the text, or its reference, is another one.
    """
    number = 0
    for number, (before, line) in enumerate(zip(translations.pairs(translations.count), lines, strict=False), 1):
        if (before.source, before.reference) != line:
            its = source.name if before.source != line[0] else "--reference"
            raise UserError(
                f"line {number:,} of {its} is not that of {translations.path}; give the same text, or name another "
                f"--text."
            )
    if number < translations.count:
        raise UserError(
            f"{translations.path} has {translations.count:,} lines and {source.name} has {number:,}; give the same "
            f"text, or name another --text."
        )


def _made_with(options: DistilOptions, hashes: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What translations depend on."""
    names = {key_of(field) for field in fields(options) if field.name not in WITHOUT_EFFECT}
    values = {name: value for name, value in to_mapping(options).items() if name in names}
    backward = None if options.backward is None else model_hashes(find_model(options.backward))[PARAMETERS]
    teachers = [of_teacher[PARAMETERS] for of_teacher in hashes]
    return {"teachers": teachers, "backward": backward, "reference": options.reference is not None, **values}


def _vocabularies(teacher: Path, hashes: dict[str, str]) -> tuple[Path, ...]:
    names = (JOINT_VOCABULARY,) if JOINT_VOCABULARY in hashes else (SOURCE_VOCABULARY, TARGET_VOCABULARY)
    return tuple(find_model(teacher) / name for name in names)


def _keep(
    options: DistilOptions, prepared: PrepareOptions, translations: TranslationsFile, total: int
) -> tuple[int, float]:
    """Writes the pairs that are judged well enough as text; how many, and how the worst of them was judged.

    Of each pair about 30 bytes are held in memory.

    Raises:
        UserError: none is kept, or the data that are there were made of others.
    """
    if not total:
        raise UserError("--source has no lines; there is nothing to distil.")
    scores = np.frombuffer(array("d", (pair.score for pair in translations.pairs())))
    keep = chosen(scores, options.best_share, options.threshold)
    if not keep.any():
        raise UserError(f"none of {total:,} pairs is kept; look at {translations.path}, or lower --threshold.")
    [source], [target] = prepared.train_source, prepared.train_target
    kept = [(pair for pair, is_kept in zip(translations.pairs(), keep, strict=True) if is_kept) for _ in range(2)]
    assert prepared.out is not None
    if (prepared.out / MANIFEST).exists() and not options.overwrite:
        if not _are(kept[0], source, target):
            raise UserError(f"--out: {prepared.out} has other pairs than are kept now; pass --overwrite to replace it.")
    else:
        with output_lines(source, "--text") as write_source, output_lines(target, "--text") as write_target:
            for pair in kept[1]:
                write_source(pair.source)
                write_target(pair.target)
    return int(keep.sum()), float(scores[keep].min())


def _are(kept: Iterator[Pair], source: Path, target: Path) -> bool:
    """Whether the files have these pairs."""
    there = zip_longest(*(text_lines(path, "--text") for path in (source, target)))
    return all(pair == (its and (its.source, its.target)) for pair, its in zip_longest(there, kept))
