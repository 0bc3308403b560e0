"""``distil``: a text, translated by teachers, becomes the data that a student is trained on.

Sequence-level knowledge distillation (Kim & Rush 2016, EMNLP, arXiv:1606.07947). The student learns from the teacher's
translations instead of people's. They are more alike, so that a small model can learn them. With references, of the
beam the candidate nearest to the reference is taken (section 3.3 there, sequence-level interpolation).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from nmt_async.checkpoints import find_model
from nmt_async.checkpoints.model_folder import (
    JOINT_VOCABULARY,
    PARAMETERS,
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    model_hashes,
)
from nmt_async.distillation.options import WITHOUT_EFFECT, DistilOptions
from nmt_async.distillation.translations import Pair, TranslationsFile
from nmt_async.errors import UserError
from nmt_async.options import to_mapping
from nmt_async.progress import Progress, SilentProgress
from nmt_async.score.filtering import best_share
from nmt_async.score.options import ScoringOptions
from nmt_async.score.scorer import Scorer
from nmt_async.text.corpus import STANDARD_INPUT, corpus, input_files
from nmt_async.text.preparation import prepare
from nmt_async.text.prepared import MANIFEST, PreparedData
from nmt_async.translate.files import devices_of, shared_out, translator_of
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.lines import TextFile, output_lines, pairs_of, warn_on_stderr
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
            backward = scorer.line_scorer(ScoringOptions(), sides=("translation", "source"))

        def pairs(window: list[Line], first: int) -> list[Pair]:
            translations = lines.translate_window([(line, "") for line, _ in window], first)
            chosen = [_chosen(each.n_best, line[1]) for each, line in zip(translations, window, strict=True)]
            back: Sequence[float | None] = [None] * len(window)
            if backward is not None:
                turned = [(candidate.text, line) for candidate, (line, _) in zip(chosen, window, strict=True)]
                back = [scored.cross_entropy for scored in backward.score_window(turned, first)]
            return [
                Pair(line, candidate.text, -candidate.score / (len(candidate.tokens) + 1), its)
                for (line, _), candidate, its in zip(window, chosen, back, strict=True)
            ]

        return pairs


def _chosen(candidates: Sequence[Candidate], reference: str | None) -> Candidate:
    """The most probable candidate, or that nearest to the reference; of equally near ones the most probable."""
    if reference is None or len(candidates) == 1:
        return candidates[0]
    bleu = BLEU(effective_order=True)
    return max(candidates, key=lambda candidate: bleu.sentence_score(candidate.text, [reference]).score)


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
    _check_before_hours(options, options.out)
    devices = devices_of(options)
    hashes = [model_hashes(find_model(teacher)) for teacher in teachers]
    source, lines = _lines(options)
    text = options.text or options.out.with_name(options.out.name + ".text")
    try:
        text.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--text: {text} cannot be made ({error.strerror}); name another folder.") from None
    builder = TeacherBuilder(tuple(teachers), options)
    with closing(TranslationsFile(text / TRANSLATIONS, _made_with(options, hashes))) as translations:
        left = _left(lines, source, translations)
        total = translations.count
        with (
            progress.stage("translate", source.size) as step,
            closing(shared_out(builder, options, devices, left, source.at_hand)) as pairs,
        ):
            for total, pair in enumerate(pairs, translations.count + 1):
                translations.append(pair)
                step(source.read, total - translations.count)
        kept, lowest = _write_kept(options, translations, text)
    if not kept:
        raise UserError(f"none of {total:,} pairs is kept; lower --threshold, or look at {text / TRANSLATIONS}.")
    prepared = options.prepared_from(text / KEPT_SOURCE, text / KEPT_TARGET, _vocabularies(teachers[0], hashes[0]))
    return Distilled(total, kept, lowest, text, prepare(prepared, progress))


def _check_before_hours(options: DistilOptions, out: Path) -> None:
    """Raises UserError where the student's data could not be written after hours of translating."""
    if not (out / MANIFEST).exists():
        check_free(out, "--out: ")
    for file in input_files(corpus("valid", options.valid_source, options.valid_target, options.valid_tsv)):
        file.check()


def _lines(options: DistilOptions) -> tuple[TextFile, Iterator[Line]]:
    source = TextFile(options.source, "--source", strict=options.strict, warn=warn_on_stderr)
    if options.reference is None:
        return source, ((line, None) for line in source)
    if options.reference == options.source:
        named = "standard input" if options.source == STANDARD_INPUT else str(options.source)
        raise UserError(f"--reference and --source are both {named}; name another file for one of them.")
    reference = TextFile(options.reference, "--reference", strict=options.strict, warn=warn_on_stderr)
    return source, pairs_of(source, reference)


def _left(lines: Iterator[Line], source: TextFile, translations: TranslationsFile) -> Iterator[Line]:
    """The lines behind those that were translated before.

    Raises:
        UserError: the text is another one.
    """
    number = 0
    for number, (before, (line, _)) in enumerate(zip(translations.pairs(translations.count), lines, strict=False), 1):
        if before.source != line:
            raise UserError(
                f"line {number:,} of {source.name} is not that of {translations.path}; give the same text, or name "
                f"another --text."
            )
    if number < translations.count:
        raise UserError(
            f"{translations.path} has {translations.count:,} lines and {source.name} has {number:,}; give the same "
            f"text, or name another --text."
        )
    yield from lines


def _made_with(options: DistilOptions, hashes: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What translations depend on."""
    names = {field.name.replace("_", "-") for field in fields(options) if field.name not in WITHOUT_EFFECT}
    values = {name: value for name, value in to_mapping(options).items() if name in names}
    backward = None if options.backward is None else model_hashes(find_model(options.backward))[PARAMETERS]
    reference = None if options.reference is None else str(options.reference)
    teachers = [of_teacher[PARAMETERS] for of_teacher in hashes]
    return {"teachers": teachers, "backward": backward, "reference": reference, **values}


def _vocabularies(teacher: Path, hashes: dict[str, str]) -> tuple[Path, ...]:
    names = (JOINT_VOCABULARY,) if JOINT_VOCABULARY in hashes else (SOURCE_VOCABULARY, TARGET_VOCABULARY)
    return tuple(find_model(teacher) / name for name in names)


def _write_kept(options: DistilOptions, translations: TranslationsFile, text: Path) -> tuple[int, float]:
    """The pairs that are judged well enough, as text; how many, and how the worst of them was judged.

    Of each pair 8 bytes are held in memory.
    """
    noted = array("d", (pair.score for pair in translations.pairs()))
    scores = np.frombuffer(noted) if noted else np.zeros(0)
    keep = best_share(scores, options.best_share or 1.0)
    if options.threshold is not None:
        keep = scores >= options.threshold
    with (
        output_lines(text / KEPT_SOURCE, "--text") as write_source,
        output_lines(text / KEPT_TARGET, "--text") as write_target,
    ):
        for pair, kept in zip(translations.pairs(), keep.tolist(), strict=True):
            if kept:
                write_source(pair.source)
                write_target(pair.target)
    return int(keep.sum()), float(scores[keep].min(initial=1.0))
