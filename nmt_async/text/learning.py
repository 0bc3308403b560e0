"""The process that learns a vocabulary, run as a script by `vocabulary.train_vocabulary`.

SentencePiece cannot be interrupted while it learns, and may need more memory than there is. In a process of its own it
can be stopped at once, and being killed for memory does not take ``prepare`` along. It needs nothing of the package.

Standard input: one line of JSON, the trainer's options, then the text. Standard output: the model. Exit code 1 with
SentencePiece's message on standard error when it fails.
"""

from __future__ import annotations

import ctypes
import io
import json
import signal
import sys

import sentencepiece

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Learns from standard input; see the module."""
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
