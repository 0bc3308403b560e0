"""The ways a command can end badly, each one clear sentence and an exit code of its own."""

from __future__ import annotations

from typing import Any

LONGEST = 80
"""Characters of a value that a sentence quotes."""


class UserError(Exception):
    """A mistake of the person who typed the command: exit code 2.

    The message says what is wrong, where (file, line or option) and what to do about it.
    """

    exit_code = 2


class RunFailure(Exception):
    """Something failed that the command line could not foresee (a full disk, dying workers): exit code 1."""

    exit_code = 1


class Diverged(RunFailure):
    """Training stopped because parameters or gradients are no finite numbers any more: exit code 3.

    Another learning rate may help; trying again does not.
    """

    exit_code = 3


def shown(value: Any) -> str:
    """A value as a sentence quotes it: in quotation marks if it is text, and never at length."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]} … {text[-10:]}"
