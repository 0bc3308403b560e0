"""Subword vocabularies: SentencePiece models with Marian's indexes, ``</s>`` = 0, ``<unk>`` = 1, no begin or padding.

Unigram: Kudo 2018 (arXiv:1804.10959); BPE: Sennrich et al. 2016 (arXiv:1508.07909).
"""

from __future__ import annotations

import ctypes
import functools
import io
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from nmt_async.errors import RunFailure, UserError, shown
from nmt_async.text.token_store import token_type

END = 0
"""Index of ``</s>`` in every vocabulary, as in Marian's."""

UNKNOWN = 1
"""Index of ``<unk>`` in every vocabulary, as in Marian's."""

# SentencePiece sums floats a share per thread, so the model depends on how many there are: not on the machine's cores.
_TRAINING_THREADS = 16
_DRAWN = 1 << 16  # chances at once
_PR_SET_PDEATHSIG = 1
_QUIET = 3  # glog's levels: only what ends the process

SPACE = "\u2581"
"""How SentencePiece writes the space before a word."""

LIST_END = "<end of the word list>"
"""The control piece behind the last subword that has an index, in vocabularies made of a word list.

Text is split into the pieces behind it too; each of them is ``<unk>``.
"""


class Vocabulary:
    """The SentencePiece model in a file.

    In one with the piece `LIST_END`, splitting and looking up are two things, as where Marian reads text that is split
    already: whatever piece SentencePiece makes, an unknown run of letters too, has the index of its name if it has one.

    Attributes:
        path: that file.
        size: how many subwords it has indexes for, ``</s>`` and ``<unk>`` among them.
        looks_up: it has the piece `LIST_END`.

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
        list_end = self._model.piece_to_id(LIST_END)
        self.looks_up = list_end != self._model.unk_id()
        self.size: int = list_end if self.looks_up else self._model.vocab_size()
        special = {"</s>": self._model.eos_id(), "<unk>": self._model.unk_id()}
        absent = {"<s>": self._model.bos_id(), "<pad>": self._model.pad_id()}
        if special != {"</s>": END, "<unk>": UNKNOWN} or any(index != -1 for index in absent.values()):
            found = ", ".join(f"{name} = {index}" for name, index in {**special, **absent}.items() if index != -1)
            raise UserError(
                f"{model_path} has {found}; it needs </s> = {END}, <unk> = {UNKNOWN} and neither <s> nor <pad> "
                f"(spm_train --eos_id=0 --unk_id=1 --bos_id=-1 --pad_id=-1, as Marian does)."
            )

    def encode(self, line: str) -> list[int]:
        """The line's subword indexes, the end mark last."""
        return self.encode_lines([line])[0]

    def encode_lines(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """As `encode` for each line; ``threads`` are SentencePiece's own and run outside Python's lock."""
        if self.looks_up:
            split = self._model.encode(list(lines), out_type=str, num_threads=threads)
            return [[*(index or UNKNOWN for index in self.ids(pieces)), END] for pieces in split]
        encoded: list[list[int]] = self._model.encode(list(lines), out_type=int, add_eos=True, num_threads=threads)
        return encoded

    def encode_flat(self, lines: Sequence[str]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """As `encode_lines`, as a store has it: all subword indexes one after another, and (lines,) lengths."""
        encoded = self.encode_lines(lines)
        lengths = np.fromiter(map(len, encoded), np.int64, count=len(encoded))
        ids = chain.from_iterable(encoded)
        return np.fromiter(ids, token_type(self.size), count=int(lengths.sum())), lengths

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The subwords of these indexes, as SentencePiece writes them."""
        return tuple(self._model.id_to_piece(list(ids)))

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """The indexes of these subwords; ``<unk>``'s for one that has none."""
        return [index if index < self.size else UNKNOWN for index in self._model.piece_to_id(list(pieces))]

    @functools.cached_property
    def all_pieces(self) -> tuple[str, ...]:
        """The subwords in the order of their indexes."""
        return self.pieces(range(self.size))

    def is_same_as(self, other: Vocabulary) -> bool:
        """Whether each index means the same subword in both; they may split text otherwise."""
        return self is other or self.all_pieces == other.all_pieces

    def tag(self, word: str) -> list[int]:
        """The subwords that ``word`` becomes as the first one of a line: itself, and perhaps the space before it.

        Raises:
            UserError: it is none, since it falls into several subwords or into an unknown one.
        """
        ids = self.encode(word)[:-1]
        pieces = [piece for piece in self.pieces(ids) if piece != SPACE]
        if len(pieces) != 1 or pieces[0].removeprefix(SPACE) != word or UNKNOWN in ids or not word:
            raise UserError(
                f"{shown(word)} is no subword of {self.path}, so it cannot be a tag; the vocabulary must be learnt "
                f"with it (prepare --corpora)."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the subwords before the first end mark."""
        text: str = self._model.decode([int(index) for index in takewhile(lambda index: index != END, ids)])
        return text


def train_vocabulary(
    lines: Iterable[str | bytes], size: int, kind: str, out: Path, *, character_coverage: float = 0.9995,
    tags: Sequence[str] = (),
) -> Vocabulary:  # fmt: skip
    """Learns a vocabulary of exactly ``size`` subwords from ``lines`` and writes it to ``out``.

    The lines are held in memory, at about 25 bytes a character, so a large corpus is given as a sample
    (`sample_rows`). The same lines give the same file. SentencePiece leaves out lines of more than 4,192 bytes.

    Args:
        kind: ``unigram`` or ``bpe``.
        character_coverage: the share of the text's characters that must be in the vocabulary; the rarest become
            ``<unk>``. 1.0 for small alphabets, 0.9995 for Chinese or Japanese and noisy text.
        tags: words that become a subword each, with the space before them.

    Raises:
        UserError: the text allows no vocabulary of this size; the message gives the limit.
        RunFailure: SentencePiece fails for another reason, or its process is killed.
    """
    options = {
        "vocab_size": size, "model_type": kind, "character_coverage": character_coverage, "hard_vocab_limit": True,
        "byte_fallback": False, "eos_id": END, "unk_id": UNKNOWN, "bos_id": -1, "pad_id": -1,
        "num_threads": _TRAINING_THREADS, "minloglevel": _QUIET,
    }  # fmt: skip
    if tags:
        options["user_defined_symbols"] = [SPACE + tag for tag in tags]  # with the space before it, one subword
    model = _learn(options, lines, size)
    part = out.with_name(out.name + ".part")
    part.write_bytes(model)
    part.replace(out)
    return Vocabulary(out)


def _learn(options: dict[str, Any], lines: Iterable[str | bytes], size: int) -> bytes:
    """The model that a process of its own learns, which runs `main`.

    SentencePiece cannot be interrupted while it learns, and may need more memory than there is. In a process of its own
    it can be stopped at once, and being killed for memory does not take ``prepare`` along.
    """
    command = [sys.executable, "-P", "-m", __name__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdin is not None
        try:
            try:
                process.stdin.write(json.dumps(options).encode() + b"\n")
                for line in lines:
                    process.stdin.write((line.encode() if isinstance(line, str) else line) + b"\n")
            except BrokenPipeError:  # it ended early; its message says why
                pass
            model, message = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        raise RunFailure(
            f"learning the vocabulary was ended by signal {-process.returncode}"
            f"{', most likely for lack of memory: choose a lower --vocab-sample' if process.returncode == -9 else ''}."
        )
    if process.returncode:
        raise _explained(message.decode(errors="replace").strip(), size)
    return model


def _explained(message: str, size: int) -> UserError | RunFailure:
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


def sample_rows(total: int, wanted: int, seed: int) -> NDArray[np.int64] | None:
    """``wanted`` of ``total`` lines, each as likely as any other, as rising numbers from 0.

    None: all of them, with ``wanted`` 0 or not below ``total``.

    Selection sampling: Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S. The chances are those that
    ``random.Random(seed)`` gives one after another.
    """
    if not 0 < wanted < total:
        return None
    _, state, _ = random.Random(seed).getstate()
    stream = np.random.RandomState()
    stream.set_state(("MT19937", np.array(state[:-1], np.uint32), state[-1], 0, 0.0))
    chosen: list[int] = []
    for begin in range(0, total, _DRAWN):
        remaining = np.arange(total - begin, max(total - begin - _DRAWN, 0), -1)
        products = remaining * stream.random_sample(len(remaining))
        # The number still wanted only falls, so what is not below it now will not be.
        for row in np.flatnonzero(products < wanted - len(chosen)).tolist():
            if products[row] < wanted - len(chosen):
                chosen.append(begin + row)
        if len(chosen) == wanted:
            break
    return np.array(chosen, np.int64)


def main() -> int:
    """Learns a vocabulary: the process that `train_vocabulary` starts.

    Standard input: one line of JSON, the trainer's options, then the text. Standard output: the model. Exit code 1 with
    SentencePiece's message on standard error when it fails.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    options = json.loads(sys.stdin.buffer.readline())
    lines = (line.rstrip(b"\n").decode() for line in sys.stdin.buffer)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **options)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(model.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
