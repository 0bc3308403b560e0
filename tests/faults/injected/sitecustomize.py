"""Python imports this at its start where the folder is on its path: SIGUSR2 becomes an exception, wherever it is."""

import signal


def _fail(*_):
    raise RuntimeError("injected from outside")


signal.signal(signal.SIGUSR2, _fail)
