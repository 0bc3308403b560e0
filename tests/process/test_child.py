"""Real children of the fork server: what they inherit, how they end, and that none outlives its parent."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import IMPORTED
from training_runs import alive, command_of, family, name_of, until

from nmt_async.process import fork_server
from nmt_async.process.child import Child, children
from nmt_async.process.inheritance import Descriptor
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.training.cluster_options import CHILDREN

PATIENCE = 60.0


def ask(body: Any, *arguments: Any, threads: int = 1) -> Any:
    """What the body sends, of a child that is ended then."""
    child = Child("asked", body, arguments, threads)
    try:
        assert child.pipe.poll(PATIENCE)
        return child.pipe.recv()
    finally:
        child.close()


def tell_surroundings(pipe):
    pipe.send({
        "threads": (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]),
        "environment": os.environ.get("OF_THE_TEST"), "directory": os.getcwd(), "path": sys.path[-1],
        "niceness": os.nice(0), "files": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "cores": os.sched_getaffinity(0), "name": name_of(os.getpid()),
        "tasks": len(os.listdir("/proc/self/task")), "cuda": torch.cuda.is_initialized(),
    })  # fmt: skip


def test_a_child_inherits_what_its_parent_has_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(tell_surroundings)
    monkeypatch.setenv("OF_THE_TEST", "yes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    limit, cores = resource.getrlimit(resource.RLIMIT_FSIZE), os.sched_getaffinity(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, limit[1]))
    os.sched_setaffinity(0, {min(cores)})
    try:
        after = ask(tell_surroundings, threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        os.sched_setaffinity(0, cores)
    assert before["environment"] is None
    assert before["threads"] == (1, "1", "1")
    assert after["threads"] == (2, "2", "2")
    assert (after["environment"], after["directory"], after["path"]) == ("yes", str(tmp_path), str(tmp_path))
    assert after["niceness"] == before["niceness"]
    assert after["files"] == 10**9
    assert (before["cores"], after["cores"]) == (cores, {min(cores)})
    assert after["name"] == "asked"


def test_the_server_stays_without_threads_and_without_cuda() -> None:
    """A fork would lose the threads with the locks that they hold, and CUDA does not survive one."""
    fork_server.prepare(*CHILDREN)
    found = ask(tell_surroundings)
    assert found["tasks"] == 1
    assert not found["cuda"]
    (server,) = (pid for pid in family(os.getpid()) if "fork_server" in command_of(pid))
    assert len(os.listdir(f"/proc/{server}/task")) == 1


def test_what_is_imported_early_is_there() -> None:
    """The server passes over what it cannot import: each child would then import it anew."""
    assert all(find_spec(name) for name in (*CHILDREN, *IMPORTED))


def compute(pipe):
    torch.manual_seed(1)
    matrix = torch.randn(700, 700)
    pipe.send((matrix @ matrix).sum(0).tolist())
    pipe.send(len(os.listdir("/proc/self/task")))


def test_a_child_computes_with_as_many_threads_as_it_may() -> None:
    products = {}
    for threads in (1, 2):
        child = Child("computing", compute, (), threads)
        products[threads] = child.pipe.recv()
        assert (child.pipe.recv() > 1) == (threads > 1)
        child.close()
    assert products[1] == pytest.approx(products[2], rel=1e-3, abs=1e-2)


def fill(vectors, number, read, pipe):
    vectors.tensor[number] = number + 1
    pipe.send(os.read(read.number, 100))


def test_memory_and_open_files_are_shared_with_children() -> None:
    vectors = SharedVectors(2, 5)
    read, write = os.pipe()
    os.write(write, b"of the parent")
    assert ask(fill, vectors, 1, Descriptor(read)) == b"of the parent"
    assert vectors.tensor.tolist() == [[0.0] * 5, [2.0] * 5]
    with pytest.raises(TypeError, match="goes to a child only"):
        pickle.dumps(vectors)
    for descriptor in (read, write):
        os.close(descriptor)
    vectors.close()


def end(how, pipe):
    pipe.send(None)
    if isinstance(how, int):
        os.kill(os.getpid(), how)
    raise how


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [(signal.SIGKILL, -9, "killed by signal 9; out of memory?"), (signal.SIGSEGV, -11, "killed by signal 11, SIGSEGV"),
     (SystemExit(3), 3, "exit code 3"), (SystemExit(None), 0, "exit code 0"), (ValueError("so"), 1, "exit code 1")],
    ids=str,
)  # fmt: skip
def test_how_a_child_ended_is_told(how: Any, code: int, words: str) -> None:
    child = Child("ending", end, (how,), 1)
    assert child in children()
    child.pipe.recv()
    until(lambda: child.exitcode is not None, "its end")
    assert (child.exitcode, child.ending) == (code, words)
    assert Path(f"/proc/{child.pid}").exists()  # nobody else is given its number
    child.close()
    child.close()
    assert child not in children()
    until(lambda: not Path(f"/proc/{child.pid}").exists(), "its number to be free")


def wait_for_ever(pipe):
    pipe.send(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    time.sleep(1000)


def waiting() -> Child:
    child = Child("waiting", wait_for_ever, (), 1)
    assert child.pipe.recv() is True
    return child


def test_a_child_that_is_stopped_or_whose_server_is_can_be_ended() -> None:
    stopped, other = waiting(), waiting()
    server = os.getpgid(stopped.pid)
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: "kill -CONT" in stopped.state, "it to stop")
    stopped.close()
    assert stopped.ending == "killed by signal 9; out of memory?"
    os.kill(server, signal.SIGSTOP)
    try:
        other.end()
        assert other.ending == "killed by signal 9; out of memory?"
        assert not alive(other.pid)
    finally:
        os.kill(server, signal.SIGCONT)
        other.close()


def test_children_die_with_the_server_and_the_next_gets_another() -> None:
    child = waiting()
    server = os.getpgid(child.pid)
    os.kill(server, signal.SIGKILL)
    until(lambda: child.exitcode is not None, "its end")
    assert child.ending == "killed by signal 9; out of memory?"
    new = waiting()
    assert os.getpgid(new.pid) != server
    child.close()
    new.close()


def test_servers_that_are_killed_while_they_start_are_replaced_again_and_again() -> None:
    fork_server.close()
    killed: set[int] = set()
    done = threading.Event()

    def kill_three() -> None:
        while len(killed) < 3 and not done.wait(0.005):
            server = fork_server._server
            if server is not None and server.process.pid not in killed:
                killed.add(server.process.pid)
                os.kill(server.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_three)
    killer.start()
    try:
        child = waiting()
    finally:
        done.set()
        killer.join(timeout=10)
    assert len(killed) == 3
    assert os.getpgid(child.pid) not in killed
    child.close()


def test_a_server_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    child = waiting()
    server = os.getpgid(child.pid)
    os.kill(server, signal.SIGSTOP)
    monkeypatch.setattr(fork_server, "ANSWER_SECONDS", 0.2)
    new = Child("new", wait_for_ever, (), 1)
    assert new.pipe.recv() is True
    assert os.getpgid(new.pid) != server
    assert not alive(server)
    until(lambda: child.exitcode is not None, "the end of the server's child")
    child.close()
    new.close()


def test_a_signal_to_the_whole_group_is_left_to_the_parent() -> None:
    child = waiting()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpgid(child.pid), number)
    assert os.getpgid(child.pid) != os.getpgid(0)
    again = waiting()  # the server is still there
    assert child.exitcode is None
    os.kill(child.pid, signal.SIGTERM)  # meant for the child alone
    until(lambda: child.exitcode == -signal.SIGTERM, "its end")
    child.close()
    again.close()


PROGRAM = """
import os, sys, threading, time
sys.path.insert(0, {folder!r})
import test_child
from nmt_async.process import fork_server

def start():
    if {early}:
        fork_server.prepare()
    else:
        test_child.waiting()
    print("begun", flush=True)

if {thread}:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
time.sleep(1000)
"""


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("early", [False, True], ids=["with a child", "while the server starts"])
def test_nothing_outlives_a_parent_that_is_killed(thread: bool, early: bool) -> None:
    program = PROGRAM.format(folder=str(Path(__file__).parent), thread=thread, early=early)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        others = family(parent.pid) - {parent.pid}
        assert len(others) >= (1 if early else 2)
        assert all(map(alive, others))  # also after the end of the thread that started them
        parent.kill()
        assert parent.stdout.read() == b""  # which comes when nobody holds it any more
    until(lambda: not any(map(alive, others)), "the end of the children")


UNGUARDED = """
from pathlib import Path
import sys
from training_runs import run_small
print(run_small(Path(sys.argv[1]), Path(sys.argv[2]), stop_after="2").said)
print("torch._dynamo" in sys.modules)
"""


def test_a_script_without_a_guard_trains(small_data: Path, tmp_path: Path) -> None:
    """Children import nothing of the user's: multiprocessing's would run the script once more in each of them."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script), str(small_data), str(tmp_path / "run")], capture_output=True, text=True,
        timeout=PATIENCE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopped at update 2" in done.stdout
    assert done.stdout.endswith("\nFalse\n")  # torch's compiler was not imported, which takes a second


def test_many_threads_start_children_at_once() -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(ask(tell_surroundings)["name"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == ["asked"] * 4


def test_a_copy_of_this_process_has_a_server_of_its_own() -> None:
    child = waiting()
    pid = os.fork()
    if pid == 0:
        try:
            mine = waiting()
            os._exit(0 if os.getpgid(mine.pid) != os.getpgid(child.pid) else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert child.exitcode is None
    child.close()
