"""The layers: nothing imports upward, and sync/ is pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANYWHERE = {
    "allocation", "checksums", "devices", "errors", "formatting", "free_memory", "lazy", "options", "progress",
    "quantity", "reading", "writing",
}  # fmt: skip
"""Files at the top of nmt_async that every layer may import, and that import only each other."""

BOTTOM = {"sync", "model", "text"}
BELOW_TRAINING = BOTTOM | {"process", "machines", "cluster", "checkpoints", "search", "translate", "score"}
MAY_IMPORT = {
    "__init__": {
        "translate",
        "score",
        "training",
    },  # of the package itself, which gives Translator and train short names
    "sync": {"text.plan"},  # a batch's name is that of the plan
    "text": set(),
    "demo_corpus": set(),
    "model": {"text.batch"},
    "process": set(),
    "machines": {"sync"},
    "cluster": BOTTOM | {"machines", "process"},
    "checkpoints": BOTTOM,
    "search": BOTTOM | {"checkpoints"},
    # One of its engines is another program.
    "translate": BOTTOM | {"process", "checkpoints", "search", "export.ctranslate2"},
    "score": BOTTOM | {"checkpoints", "search", "translate"},
    "distillation": BOTTOM | {"checkpoints", "search", "translate", "score"},
    "export": BOTTOM | {"checkpoints", "search", "translate"},
    "display": BOTTOM | {"cluster", "sync"},
    "training": BELOW_TRAINING | {"display"},
    "planning": BOTTOM | {"cluster"},
    "bench": BELOW_TRAINING | {"training", "planning", "export", "demo_corpus"},
    "study": BELOW_TRAINING | {"display", "training", "planning"},
    "report": {"study", "display", "planning"},
    "doctor": BELOW_TRAINING | {"display", "training"},
    "cli": BELOW_TRAINING
    | {"display", "training", "planning", "bench", "study", "report", "doctor", "export", "distillation"},
}
IMPURE = {
    "os", "sys", "time", "datetime", "threading", "multiprocessing", "concurrent", "asyncio", "subprocess", "signal",
    "socket", "select", "selectors", "fcntl", "pathlib", "io", "mmap", "tempfile", "shutil", "glob", "ctypes", "random",
    "secrets", "logging",
}  # fmt: skip
"""Modules that reach processes, clocks, files, devices or random numbers that everybody shares."""

IMPURE_PARTS = {"cuda", "distributed", "multiprocessing", "memmap", "random"}
"""Attributes that do, of torch and numpy."""

IMPURE_CALLS = {
    "open", "print", "input", "device", "save", "load", "from_file", "fromfile", "tofile", "savez",
    "savez_compressed", "savetxt", "loadtxt", "genfromtxt", "manual_seed", "set_num_threads", "set_default_device",
}  # fmt: skip
RANDOM_CALLS = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"}
"""Functions that draw from the generator that everybody shares, unless they are given one."""


def sources() -> list[Path]:
    """Every module of the package and of the command line, relative to the repository."""
    return sorted(path.relative_to(ROOT) for folder in ("nmt_async", "cli") for path in (ROOT / folder).rglob("*.py"))


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path, tree: ast.Module) -> Iterator[str]:
    """What a module imports, by its full name; cli/ counts as nmt_async.cli, as it is installed.

    Of ``from a import b`` this is ``a.b``, since ``b`` may be a module.
    """
    package = ("nmt_async", *path.parts[:-1]) if path.parts[0] == "cli" else path.parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            yield from (f"{module}.{name.name}" for name in node.names)


def layer_of(path: Path) -> str:
    """The layer a file belongs to: "sync", "cli"; a file at the top of nmt_async is its own ("errors")."""
    if path.parts[0] == "cli":
        return "cli"
    return path.parts[1] if len(path.parts) > 2 else path.stem


def forbidden_imports(path: Path, tree: ast.Module) -> list[str]:
    layer = layer_of(path)
    anywhere = ANYWHERE - {"devices"} if layer == "sync" else ANYWHERE  # it computes where its tensors are
    allowed = MAY_IMPORT.get(layer, set()) | anywhere | {layer, "__version__"}
    found = []
    for name in imports_of(path, tree):
        if name.split(".")[0] == "cli":
            found.append(f"{name} (installed, it is nmt_async.cli)")
        elif name.startswith("nmt_async."):
            inside = name.removeprefix("nmt_async.")
            if not any(f"{inside}.".startswith(f"{prefix}.") for prefix in allowed):
                found.append(name)
    return found


def impurities(tree: ast.Module, path: Path) -> list[str]:
    """What reaches outside tensors: imports, files, shared random numbers, a device other than a tensor's at hand."""
    found = [name for name in imports_of(path, tree) if name.split(".")[0] in IMPURE]
    found += [
        name
        for name in imports_of(path, tree)
        if name.split(".")[0] in ("torch", "numpy") and IMPURE_PARTS.intersection(name.split(".")[1:])
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in IMPURE_PARTS:
            found.append(f"line {node.lineno}: .{node.attr}")
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {keyword.arg for keyword in node.keywords}
            if called in IMPURE_CALLS or (called.rstrip("_") in RANDOM_CALLS and "generator" not in given):
                found.append(f"line {node.lineno}: {called}()")
            if called == "to" and any(isinstance(argument, ast.Constant) for argument in node.args):
                found.append(f"line {node.lineno}: .to a device")
            found += [
                f"line {node.lineno}: device="
                for keyword in node.keywords
                if keyword.arg == "device" and getattr(keyword.value, "attr", "") != "device"
            ]
    return found


@pytest.mark.parametrize("path", sources(), ids=str)
def test_a_layer_imports_only_what_lies_below_it(path: Path) -> None:
    assert layer_of(path) in MAY_IMPORT.keys() | ANYWHERE | {"__init__"}, f"{path} is in no layer"
    assert forbidden_imports(path, tree_of(path)) == []


@pytest.mark.parametrize("path", [path for path in sources() if layer_of(path) == "sync"], ids=str)
def test_sync_knows_no_process_clock_file_or_device(path: Path) -> None:
    assert impurities(tree_of(path), path) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nmt_async/sync/server.py", "from nmt_async.cluster.worker import Worker"),
        ("nmt_async/sync/server.py", "import nmt_async.text.batch"),
        ("nmt_async/sync/server.py", "from ..training import loop"),
        ("nmt_async/model/loss.py", "from nmt_async.text.corpus import read"),
        ("nmt_async/search/beam.py", "from nmt_async.training import checkpoint"),
        ("nmt_async/errors.py", "from nmt_async import sync"),
        ("cli/train.py", "from cli.declare import command"),
    ],
)
def test_an_upward_import_is_found(path: str, line: str) -> None:
    assert forbidden_imports(Path(path), ast.parse(line))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nmt_async/model/loss.py", "from nmt_async.text.batch import Batch"),
        ("nmt_async/training/loop.py", "from nmt_async.display.console import Console"),
        ("nmt_async/sync/server.py", "from .rules import Rule"),
        ("nmt_async/sync/server.py", "from nmt_async.errors import UserError"),
        ("cli/train.py", "from .declare import command"),
        ("cli/main.py", "from nmt_async import __version__"),
    ],
)
def test_a_downward_import_is_allowed(path: str, line: str) -> None:
    assert forbidden_imports(Path(path), ast.parse(line)) == []


def test_the_device_of_a_tensor_at_hand_is_no_choice() -> None:
    line = "y = torch.zeros(3, device=x.device).to(x.dtype) + torch.rand(3, generator=g)"
    assert impurities(ast.parse(line), Path("nmt_async/sync/server.py")) == []


@pytest.mark.parametrize(
    "line",
    ["import os.path", "from time import monotonic", "import torch.multiprocessing", "x = x.cuda()",
     "torch.zeros(3, device='cpu')", "torch.zeros(3, device=best)", "torch.device('cpu')", "x.to('cpu')",
     "open('file')", "import mmap", "import io", "from io import BytesIO", "import random", "import torch.distributed",
     "from torch import distributed", "torch.distributed.all_reduce(x)", "from numpy import memmap", "np.memmap('f')",
     "np.random.rand(3)", "np.load('f')", "x.tofile('f')", "np.fromfile('f')", "torch.save(x, 'f')", "torch.load('f')",
     "torch.manual_seed(1)", "torch.rand(3)", "x.normal_()", "torch.multiprocessing.spawn(f)", "print(x)"],
)  # fmt: skip
def test_an_impurity_is_found(line: str) -> None:
    assert impurities(ast.parse(line), Path("nmt_async/sync/server.py"))
