"""Scores the pairs of files, n-best lists and whole corpora: what the command ``score`` does."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError
from nmt_async.progress import Progress, Step
from nmt_async.score.filtering import DualScore, chosen, dual_scores
from nmt_async.score.options import ScoreOptions
from nmt_async.score.rescoring import ranked, read_entries, rescore
from nmt_async.score.scorer import LineScorer, Scored, Scorer
from nmt_async.search import Penalties
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.translate.formats import json_line, marian_word_scores, word_fields, words_of
from nmt_async.translate.lines import TextFile, WriteLine, output_lines, pairs_of, warn_on_stderr


def score_files(options: ScoreOptions, models: Sequence[Path], progress: Progress) -> None:
    """Scores what the options name with the models in folders, as one; writes scores, a list, or kept pairs.

    Raises:
        UserError: options that do not go together, files that cannot be read or do not fit each other.
    """
    weights = options.feature_weights
    source, target = _files(options)
    scorer = Scorer(models, weights=options.model_weights, device=options.device, threads=options.threads)
    line_scorer = scorer.line_scorer(options, options.target_pieces)
    with progress.stage("score", target.size) as step:
        if options.backward is not None:
            back = Scorer(options.backward, device=options.device).line_scorer(
                replace(options, tag=None), sides=("target", "source")
            )
            _filter(options, line_scorer, back, source, target, step)
            return
        with output_lines(options.output) as write:
            if options.n_best:
                entries = read_entries(target, target.name)
                rescored = rescore(entries, source, line_scorer, options.n_best_feature, target.at_hand)
                for count, entry in enumerate(ranked(rescored, weights) if weights else rescored, 1):
                    write(str(entry))
                    step(target.read, count)
            else:
                _score(options, line_scorer, source, target, write, step)


def _files(options: ScoreOptions) -> tuple[TextFile, TextFile]:
    if options.source is None or options.target is None:
        raise UserError("score needs --source FILE and --target FILE.")
    if options.source == options.target == STANDARD_INPUT:
        raise UserError("--source and --target are both standard input; name a file for one of them.")
    source = TextFile(options.source, "--source", strict=options.strict, warn=warn_on_stderr)
    target = TextFile(options.target, "--target", strict=options.strict, warn=warn_on_stderr)
    if options.filters and None in (source.size, target.size):
        raise UserError("filtering reads --source and --target twice; give files, not pipes.")
    return source, target


def _score(
    options: ScoreOptions, scorer: LineScorer, source: TextFile, target: TextFile, write: WriteLine, step: Step
) -> None:
    """A line for each pair, or the summary of all."""
    penalised = options.penalties != Penalties(0.0)
    total, tokens, count = 0.0, 0, 0
    pairs = pairs_of(source, target)
    for count, scored in enumerate(scorer.score(pairs, source.at_hand and target.at_hand), 1):
        if options.summary is None:
            write(scored_line(count, scored, options.format, penalised, options.word_scores))
        total += scored.score
        tokens += len(scored.token_scores)
        step(target.read, count)
    if options.summary is not None:
        write(f"{summarised(options.summary, -total, count, tokens):.6f}")


def summarised(name: str, entropy: float, pairs: int, tokens: int) -> float:
    """The figure of that name (`SUMMARY_NAMES`).

    Args:
        entropy: negative log-probability of all pairs, in nats.
        tokens: their target subwords, end marks counted.
    """
    per_token = entropy / max(1, tokens)
    if name == "cross-entropy":
        return entropy / max(1, pairs)
    return {"ce-sum": entropy, "ce-mean-words": per_token, "perplexity": math.exp(min(per_token, 700.0))}[name]


def _filter(
    options: ScoreOptions, forward: LineScorer, backward: LineScorer, source: TextFile, target: TextFile, step: Step
) -> None:
    """Dual scores, and the pairs that are kept, if any are to be; then scores go to a file only.

    Of each pair 8 bytes are held in memory.
    """
    noted = array("d")
    scores = dual_scores(pairs_of(source, target), forward, backward, source.at_hand and target.at_hand)
    with ExitStack() as stack:
        # Kept pairs' files are opened first: hours of scoring must not end at a name that cannot be written.
        kept_source, kept_target, write = (
            stack.enter_context(output_lines(path, flag)) if wanted else None
            for path, flag, wanted in (
                (options.kept_source, "--kept-source", options.filters),
                (options.kept_target, "--kept-target", options.filters),
                (options.output, "--output", options.output is not None or not options.filters),
            )
        )
        for score in scores:
            noted.append(score.score)
            if write is not None:
                write(dual_line(len(noted), score, options.format))
            step(target.read, len(noted))
        if kept_source is not None and kept_target is not None:
            kept = chosen(np.frombuffer(noted) if noted else np.zeros(0), options.best_share, options.threshold)
            _write_kept(source, kept, kept_source)
            _write_kept(target, kept, kept_target)


def _write_kept(file: TextFile, kept: NDArray[np.bool_], write: WriteLine) -> None:
    for line, keep in zip(file.again(), kept, strict=True):
        if keep:
            write(line)


def scored_line(number: int, scored: Scored, form: str, normalised: bool, words: bool) -> str:
    """What is printed of the pair ``number``, counted from 1.

    Args:
        normalised: print, as text, the normalised score.
        words: print the subwords and their scores.
    """
    if form == "jsonl":
        values: dict[str, Any] = {"line": number, "score": scored.score, "normalised": scored.normalised}
        return json_line(values | (words_of(scored.tokens, scored.token_scores) if words else {}))
    if form == "tsv":
        fields = [str(number), f"{scored.score:.6f}", f"{scored.normalised:.6f}"]
        return "\t".join(fields + (word_fields(scored.tokens, scored.token_scores) if words else []))
    text = f"{scored.normalised if normalised else scored.score:.6f}"
    return f"{text} ||| {marian_word_scores(scored.token_scores)}" if words else text


def dual_line(number: int, dual: DualScore, form: str) -> str:
    """What is printed of the dual cross-entropy of the pair ``number``, counted from 1."""
    if form == "jsonl":
        return json_line({"line": number, "score": dual.score, "forward": dual.forward, "backward": dual.backward})
    if form == "tsv":
        return f"{number}\t{dual.score:.6f}\t{dual.forward:.6f}\t{dual.backward:.6f}"
    return f"{dual.score:.6f}"
