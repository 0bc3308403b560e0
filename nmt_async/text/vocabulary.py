"""Subword vocabularies: SentencePiece models with Marian's indexes, ``</s>`` = 0, ``<unk>`` = 1, no begin or padding.

Unigram: Kudo 2018 (arXiv:1804.10959); BPE: Sennrich et al. 2016 (arXiv:1508.07909).
"""

from __future__ import annotations

import io
import random
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import sentencepiece

from nmt_async.errors import RunFailure, UserError
from nmt_async.text.batch import END, UNKNOWN

# SentencePiece sums floats a share per thread, so the model depends on how many there are: not on the machine's cores.
_TRAINING_THREADS = 16
_QUIET = 3  # glog's levels: only what ends the process


class Vocabulary:
    """The SentencePiece model in a file.

    Attributes:
        path: that file.
        size: how many subwords it knows, ``</s>`` and ``<unk>`` among them.

    Raises:
        UserError: there is no such file, it is no SentencePiece model, or its special indexes are not Marian's.
    """

    def __init__(self, model_path: Path) -> None:
        self.path = model_path
        try:
            model = model_path.read_bytes()
        except OSError as error:
            raise UserError(f"{model_path} cannot be read as a vocabulary ({error.strerror}).") from None
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            loaded = bool(model) and self._model.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError):
            loaded = False
        if not loaded:
            raise UserError(f"{model_path} is not a SentencePiece model.")
        self.size: int = self._model.vocab_size()
        special = {"</s>": self._model.eos_id(), "<unk>": self._model.unk_id()}
        absent = {"<s>": self._model.bos_id(), "<pad>": self._model.pad_id()}
        if special != {"</s>": END, "<unk>": UNKNOWN} or any(index != -1 for index in absent.values()):
            found = ", ".join(f"{name} = {index}" for name, index in {**special, **absent}.items() if index != -1)
            raise UserError(
                f"{model_path} has {found}; needed are </s> = {END}, <unk> = {UNKNOWN} and neither <s> nor <pad> "
                f"(spm_train --eos_id=0 --unk_id=1 --bos_id=-1 --pad_id=-1, as Marian does)."
            )

    def encode(self, line: str) -> list[int]:
        """The line's subword indexes, the end mark last."""
        return self.encode_lines([line])[0]

    def encode_lines(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """As `encode` for each line; ``threads`` are SentencePiece's own and run outside Python's lock."""
        encoded: list[list[int]] = self._model.encode(list(lines), out_type=int, add_eos=True, num_threads=threads)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the subwords before the first end mark."""
        text: str = self._model.decode([int(index) for index in takewhile(lambda index: index != END, ids)])
        return text


def train_vocabulary(
    lines: Iterable[str], size: int, kind: str, out: Path, *, character_coverage: float = 0.9995
) -> Vocabulary:
    """Learns a vocabulary of exactly ``size`` subwords from ``lines`` and writes it to ``out``.

    The lines are held in memory, so a large corpus is given as a sample (`sample_lines`). The same lines give the same
    file. SentencePiece leaves out lines of more than 4,192 bytes.

    Args:
        kind: ``unigram`` or ``bpe``.
        character_coverage: the share of the text's characters that must be in the vocabulary; the rarest become
            ``<unk>``. 1.0 for small alphabets, 0.9995 for Chinese or Japanese and noisy text.

    Raises:
        UserError: the text allows no vocabulary of this size; the message gives the limit.
        RunFailure: SentencePiece fails for another reason.
    """
    model = io.BytesIO()
    problems: list[BaseException] = []

    def watched() -> Iterator[str]:
        # SentencePiece would turn an error of the caller's into a RuntimeError of its own.
        try:
            yield from lines
        except BaseException as problem:
            problems.append(problem)
            raise

    def train() -> None:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=watched(), model_writer=model, vocab_size=size, model_type=kind,
                character_coverage=character_coverage, hard_vocab_limit=True, byte_fallback=False,
                eos_id=END, unk_id=UNKNOWN, bos_id=-1, pad_id=-1,
                num_threads=_TRAINING_THREADS, minloglevel=_QUIET,
            )  # fmt: skip
        except BaseException as problem:
            problems.append(problem)

    # In a thread of its own, since nothing in it listens for Ctrl-C, and it can take minutes.
    thread = threading.Thread(target=train, name="vocabulary", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
    if problems:
        raise _explained(problems[0], size) from None
    part = out.with_name(out.name + ".part")
    part.write_bytes(model.getvalue())
    part.replace(out)
    return Vocabulary(out)


def _explained(problem: BaseException, size: int) -> BaseException:
    if not isinstance(problem, RuntimeError):
        return problem
    message = str(problem)
    if too_high := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        return UserError(
            f"--vocab-size {size:,} is more than this text allows; the largest possible is {int(too_high[1]):,}."
        )
    if too_low := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        return UserError(
            f"--vocab-size {size:,} is too small: this text's characters alone need {int(too_low[1]):,}; "
            f"choose more, or a lower --character-coverage."
        )
    if "!sentences_.empty()" in message:
        return UserError("no line of the text can be used to learn a vocabulary: all are empty or above 4,192 bytes.")
    return RunFailure(f"SentencePiece could not learn the vocabulary: {message}")


def sample_lines(lines: Iterable[str], total: int, wanted: int, seed: int) -> Iterator[str]:
    """``wanted`` of the ``total`` lines, each as likely as any other, in their order and in constant memory.

    Selection sampling: Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S. With ``wanted`` 0 or not
    below ``total``, all of them.
    """
    if not 0 < wanted < total:
        yield from lines
        return
    chance = random.Random(seed)
    for remaining, line in zip(range(total, 0, -1), lines, strict=True):
        if remaining * chance.random() < wanted:
            wanted -= 1
            yield line
            if not wanted:
                return
