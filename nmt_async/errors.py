"""The two ways a command can end badly, each one clear sentence and an exit code."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the person who typed the command: exit code 2.

    The message says what is wrong, where (file, line or option) and what to do about it.
    """

    exit_code = 2


class RunFailure(Exception):
    """Something failed that the command line could not foresee (a full disk, dying workers): exit code 1."""

    exit_code = 1
