"""Whether the program that loads what was exported translates the same with it, each driven as its users drive it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt_async.checkpoints import LoadedModel
from nmt_async.errors import RunFailure, UserError
from nmt_async.text.vocabulary import END
from nmt_async.translate import DecodingOptions, LineTranslator
from nmt_async.translate.lines import one_line


@dataclass(frozen=True)
class Translated:
    """A translation of a line, and its summed log-probability divided by length^alpha."""

    text: str
    score: float


@dataclass(frozen=True)
class Verification:
    """Of two sides over the same lines.

    Attributes:
        lines: that were translated.
        identical: of them, those whose translations are the same text.
        score_difference: the largest between scores of the same text, in nats divided by length^alpha.
    """

    lines: int
    identical: int
    score_difference: float

    @property
    def share(self) -> float:
        """Of identical lines."""
        return self.identical / self.lines


def verified(
    loaded: LoadedModel, lines: Sequence[str], theirs: Sequence[Translated], options: DecodingOptions
) -> Verification:
    """How our translations of ``lines`` agree with another side's."""
    translator = LineTranslator(
        loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, torch.device("cpu")
    )
    ours = [Translated(translation.text, translation.score) for translation in translator.translate(lines)]
    return compared(ours, theirs)


def compared(ours: Sequence[Translated], theirs: Sequence[Translated]) -> Verification:
    """Of two sides, line by line; space at the ends of lines does not count."""
    pairs = zip(ours, theirs, strict=True)
    same = [abs(one.score - other.score) for one, other in pairs if one.text.strip() == other.text.strip()]
    return Verification(len(ours), len(same), max(same, default=0.0))


NOTHING = Translated("", 0.0)
"""Of a line without words, of which programs make different things."""

SENTENCES = 32
"""Translated at once by libraries that do not make batches themselves."""


@dataclass(frozen=True)
class Program:
    """A program to translate with.

    Attributes:
        module: that Python imports.
        install: what to give to pip.
        translate: from the exported folder, the model, lines and how to search to one translation a line.
    """

    module: str
    install: str
    translate: Callable[[Path, LoadedModel, Sequence[str], DecodingOptions], list[Translated]]


def require(name: str) -> None:
    """Raises UserError unless the program of that format is installed."""
    program = PROGRAMS[name]
    if importlib.util.find_spec(program.module) is None:
        raise UserError(f"--verify translates with {program.module}, which is missing: pip install {program.install}.")


def by_marian(
    folder: Path, loaded: LoadedModel, lines: Sequence[str], options: DecodingOptions  # noqa: ARG001
) -> list[Translated]:  # fmt: skip
    """In a process of its own, since Marian ends its process when something is wrong.

    Raises:
        RunFailure: Marian failed.
    """
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "source"), Path(place, "target")
        source.write_text("".join(f"{one_line(line)}\n" for line in lines), encoding="utf-8")
        arguments = {
            "config": folder / "decoder.yml", "input": source, "output": target, "beam-size": options.beam_size,
            "normalize": options.normalize, "cpu-threads": 1, "workspace": 256,
        }  # fmt: skip
        typed = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(
            [sys.executable, "-m", "pymarian", "decode", "--n-best", "--quiet", *typed],
            capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise RunFailure(f"Marian could not translate with {folder} ({said[0] if said else done.returncode}).")
        found = target.read_text(encoding="utf-8")
    best: dict[int, Translated] = {}
    for number, text, score in filter(None, map(_n_best, found.split("\n"))):
        best.setdefault(number, Translated(text, score))
    return [best.get(number, NOTHING) if line.strip() else NOTHING for number, line in enumerate(lines)]


def _n_best(line: str) -> tuple[int, str, float] | None:
    """Number, text and normalised score of a line of ``--n-best``."""
    parts = line.rsplit(" ||| ", 2)
    if len(parts) != 3:
        return None
    number, _, text = parts[0].partition(" ||| ")
    return int(number), text, float(parts[2])


def by_transformers(
    folder: Path, loaded: LoadedModel, lines: Sequence[str], options: DecodingOptions  # noqa: ARG001
) -> list[Translated]:  # fmt: skip
    """With MarianMTModel and its tokenizer, in this process."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.MarianMTModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder, local_files_only=True)
    found = [NOTHING] * len(lines)
    for numbers in _batches(lines):
        batch = [one_line(lines[number]) for number in numbers]
        encoded = tokenizer(batch, return_tensors="pt", padding=True, truncation=True, max_length=options.max_length)
        made = model.generate(
            **encoded, num_beams=options.beam_size, length_penalty=options.normalize,
            max_new_tokens=int(encoded["input_ids"].shape[1] * options.max_length_factor) + 10,
            return_dict_in_generate=True, output_scores=True, output_logits=True,
        )  # fmt: skip
        texts = tokenizer.batch_decode(made.sequences, skip_special_tokens=True)
        scores = made.sequences_scores if options.beam_size > 1 else _greedy_scores(made, options.normalize)
        for number, text, score in zip(numbers, texts, scores.tolist(), strict=True):
            found[number] = Translated(text, score)
    return found


def _greedy_scores(made: Any, normalize: float) -> Tensor:
    """Scores (rows,) of a greedy search, which gives none."""
    log_probabilities = torch.stack(made.logits, dim=1).log_softmax(dim=2)  # (rows, steps, vocabulary)
    chosen = made.sequences[:, 1:]
    before_end = (chosen == END).cumsum(dim=1) - (chosen == END).long() == 0
    scores = log_probabilities.gather(2, chosen[:, :, None]).squeeze(2) * before_end
    total: Tensor = scores.sum(dim=1) / before_end.sum(dim=1) ** normalize
    return total


def by_ctranslate2(
    folder: Path, loaded: LoadedModel, lines: Sequence[str], options: DecodingOptions
) -> list[Translated]:
    """With its translator and SentencePiece, in this process."""
    import ctranslate2
    import sentencepiece

    source, target = (
        sentencepiece.SentencePieceProcessor(model_file=str(vocabulary.path))
        for vocabulary in (loaded.source_vocabulary, loaded.target_vocabulary)
    )
    translator = ctranslate2.Translator(str(folder), device="cpu", intra_threads=torch.get_num_threads())
    found = [NOTHING] * len(lines)
    for numbers in _batches(lines):
        pieces = [source.encode(lines[number], out_type=str)[: options.max_length - 1] for number in numbers]
        longest = int((max(map(len, pieces)) + 1) * options.max_length_factor) + 10
        results = translator.translate_batch(
            pieces, beam_size=options.beam_size, length_penalty=options.normalize, max_decoding_length=longest,
            return_scores=True, disable_unk=True, max_input_length=0,
        )  # fmt: skip
        for number, result in zip(numbers, results, strict=True):
            found[number] = Translated(target.decode(result.hypotheses[0]), result.scores[0])
    return found


def _batches(lines: Sequence[str]) -> Iterator[list[int]]:
    """The numbers of the lines with words, of like lengths together."""
    worded = sorted(
        (number for number, line in enumerate(lines) if line.strip()), key=lambda number: len(lines[number])
    )
    for begin in range(0, len(worded), SENTENCES):
        yield worded[begin : begin + SENTENCES]


PROGRAMS = {
    "marian": Program("pymarian", "pymarian", by_marian),
    "marian-bin": Program("pymarian", "pymarian", by_marian),
    "ctranslate2": Program("ctranslate2", "'nmt-async[ctranslate2]'", by_ctranslate2),
    "huggingface": Program("transformers", "transformers", by_transformers),
}
"""By the name of the format."""
