"""The live display on a real (pseudo) terminal, and plain lines where there is none that can show it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import midway, title, trained

from nmt_async.display.console import PlainDisplay
from nmt_async.display.live import display_for

PATIENCE = 30.0
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"

RUN = """
import sys, time
sys.path.insert(0, "{here}")
from made_runs import midway, title, trained
from nmt_async.display.live import display_for
display = display_for(sys.stderr)
with display:
    display.begin(title())
    display.warn("the disk is almost full, and " + "this sentence is longer than the terminal is wide " * 3 + "END")
    display.progress(0.25, 250)
    display.trained(trained(250))
    {body}
    display.say("stopped at update 250")
{again}
print("after")
"""


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


class Terminal:
    """A program on a terminal of its own; collects what it writes there."""

    def __init__(self, body: str, environment: dict[str, str] | None = None, again: str = "") -> None:
        self.ours, theirs = pty.openpty()
        self.resize(80, 24)
        surroundings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        surroundings |= {"TERM": "xterm-256color", **(environment or {})}
        program = RUN.format(here=Path(__file__).parent, body=body, again=again)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings
        )
        os.close(theirs)
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, seen: Callable[[str], bool]) -> str:
        """Reads until what came satisfies ``seen`` (colours aside), or the program ends."""
        end = time.monotonic() + PATIENCE
        while not seen(plain(self.text)):
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self.ours, 65536).decode(errors="replace")
            except OSError:  # the program has closed its side
                break
        return plain(self.text)

    def end(self) -> tuple[str, int]:
        """All that it wrote, and its exit code."""
        self.read_until(lambda _: False)
        os.close(self.ours)
        return self.text, self.process.wait(PATIENCE)


def test_what_was_said_stays_whole_below_the_last_screen() -> None:
    text, code = Terminal("").end()
    assert code == 0
    last = plain(text[text.rindex("hybrid, 2 pushes") :])
    for part in ("25% of 1k", "warning: the disk is almost full", "END", "stopped at update 250"):
        assert part in last
    assert last.index("almost full") < last.index("END") < last.index("stopped") < last.index("after")
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_a_run_that_begins_anew_is_shown_too() -> None:
    """As when the machines that are left go on without one."""
    text, code = Terminal("", again="with display: display.say('this is machine 0 of 2')").end()
    assert code == 0
    last = plain(text[text.rindex("hybrid, 2 pushes") :])
    assert last.index("this is machine 0 of 2") < last.index("after")
    assert text.count(SHOW_CURSOR) >= 2
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_time_moves_on_the_screen_while_nothing_is_reported() -> None:
    terminal = Terminal("time.sleep(60)")
    terminal.read_until(lambda text: "2:05" in text and "2:06" in text and "2:07" in text)
    terminal.process.kill()
    terminal.end()


def test_an_exception_leaves_the_cursor_and_the_messages() -> None:
    text, code = Terminal("raise ValueError('broken')").end()
    assert code == 1
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    last = plain(text[text.rindex("hybrid, 2 pushes") :])
    assert last.index("almost full") < last.index("ValueError: broken")


def test_ctrl_c_leaves_the_cursor_and_the_messages() -> None:
    terminal = Terminal("time.sleep(60)")
    terminal.read_until(lambda text: "25% of 1k" in text)
    terminal.process.send_signal(signal.SIGINT)
    text, code = terminal.end()
    assert code in (-signal.SIGINT, 130)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert "almost full" in text[text.rindex("hybrid, 2 pushes") :]


def test_a_resized_terminal_is_drawn_anew() -> None:
    terminal = Terminal("time.sleep(60)")
    terminal.read_until(lambda text: "learning rate" in text and "25% of 1k" in text)
    terminal.resize(60, 20)
    before = len(plain(terminal.text))
    cleared = "\x1b[2J"
    text = terminal.read_until(lambda text: "source/s" in text[before:].partition(cleared)[2])
    assert cleared in text[before:]
    terminal.process.kill()
    terminal.end()


def test_no_color_is_respected() -> None:
    text, _ = Terminal("", {"NO_COLOR": "1"}).end()
    assert "25% of 1k" in plain(text)
    assert "\x1b[36m" not in text
    assert "\x1b[36m" in Terminal("").end()[0]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "latin-1"}])
def test_a_terminal_that_cannot_show_it_gets_plain_lines(environment: dict[str, str]) -> None:
    text, code = Terminal("", environment).end()
    assert code == 0
    assert "\x1b" not in text
    assert "demo: hybrid, 2 pushes an update | 2 workers on cpu | small, 6.56 M parameters | until 1k" in text
    assert "epoch 2 | update 250" in text


def test_no_terminal_or_quiet_is_plain_lines() -> None:
    out = io.StringIO()
    with display_for(out) as display:
        display.begin(title())
        display.trained(trained(50))
        display.validated(midway().validations[0])
    assert isinstance(display, PlainDisplay)
    assert len(out.getvalue().splitlines()) == 3
    with display_for(quiet := io.StringIO(), quiet=True) as display:
        display.begin(title())
        display.warn("trouble")
    assert quiet.getvalue() == "warning: trouble\n"


def test_a_terminal_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    terminal = Terminal(
        f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('deaf'); time.sleep(1); "
        f"open({str(finished)!r}, 'w').close()"
    )
    terminal.read_until(lambda text: "deaf" in text)
    os.close(terminal.ours)
    terminal.process.wait(PATIENCE)
    assert finished.exists()
