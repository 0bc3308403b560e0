"""Python imports this at its start where the folder is on its path: SIGUSR1 becomes an exception, wherever it is."""

import signal


def _fail(*_):
    raise RuntimeError("injected from outside")


signal.signal(signal.SIGUSR1, _fail)
