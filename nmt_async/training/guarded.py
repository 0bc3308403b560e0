"""What may fail without ending the run: it is told when it begins to fail, and when it works again."""

from __future__ import annotations

from collections.abc import Callable


class Guarded:
    """Call it with what is to be done.

    Args:
        warn: takes a sentence when something begins to fail.
        say: takes a sentence when it works again.
    """

    def __init__(self, warn: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._warn = warn
        self._say = say
        self._failing: set[str] = set()

    def __call__(self, what: str, do: Callable[[], object], hint: Callable[[], str] = lambda: "") -> bool:
        """Whether ``do`` could be done.

        Args:
            what: ``writing the journal``.
            hint: a part of the sentence that says more, such as what to do about it.
        """
        try:
            do()
        except OSError as error:
            if what not in self._failing:
                self._failing.add(what)
                self._warn(f"{what} failed ({error.strerror or error}); {hint()}training goes on.")
            return False
        if what in self._failing:
            self._failing.discard(what)
            self._say(f"{what} works again.")
        return True
