"""Real files made wrong in every way that a disk, a broken program or an ill will has: as bytes, and as what they say.

``NMT_ASYNC_FUZZ_EXAMPLES`` sets how many of each a reader is given; the suite is content with a few hundred.
"""

from __future__ import annotations

import copy
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nmt_async.errors import RunFailure, UserError

EXAMPLES = int(os.environ.get("NMT_ASYNC_FUZZ_EXAMPLES", "150"))
WARRANTED = 256 * 2**20
"""Bytes of memory that reading a file of a few kilobytes may never take."""

DEEP = "@deep@"
"""Stands for a nesting that no dumper writes."""

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2.5, 10**6, 10**9, 10**15, -(10**15), 2**63, -(2**63), 10**30, 10**400, 1e308,
    -1e308, 1e-320, float("nan"), float("inf"), float("-inf"), "", " ", "0", "-1", "1e9", "nan", "x", "x" * 3000, "\0",
    "a\0b", "\ud800", "\u2028", "\x1b[31m", "</script><b>", "../../../etc/passwd", "/etc/passwd", "~", ".", "..",
    "1" * 5000, [], {}, [[]], [1], [None], {"": 1}, {"a": []}, [0] * 2000,
    {str(number): number for number in range(300)}, DEEP,
)  # fmt: skip

often = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@contextmanager
def warranted_memory() -> Iterator[None]:
    """What is done inside makes the process no larger than a small file warrants."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < WARRANTED, f"{grown / 2**20:,.0f} MiB for a small file"


def answered(read: Callable[[], Any]) -> Any:
    """What ``read`` gives; None if it refuses the file in one sentence, as it should. Anything else fails."""
    with warranted_memory():
        try:
            return read()
        except (UserError, RunFailure) as refusal:
            sentence = str(refusal)
    # After the handler: a failure whose report quoted half a character would end pytest's worker process.
    wrong = {
        "no full stop": not sentence.endswith("."),
        "more than a line": "\n" in sentence,
        "too long": len(sentence) >= 2000,
        "half a character": any("\ud800" <= letter <= "\udfff" for letter in sentence),
    }
    assert not any(wrong.values()), f"{[what for what in wrong if wrong[what]]} in {sentence[:3000]!r}"
    return None


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` after one to four accidents: bits flipped, cut off, ranges lost, doubled, overwritten or put in."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.sampled_from([1, 2, 4, 8, 32, 64, 500, 5000])))
        strange = draw(st.binary(max_size=64) | st.sampled_from(STRANGE_BYTES))
        match draw(st.sampled_from(["flip", "cut", "lose", "double", "overwrite", "insert", "front", "zero"])):
            case "flip" if begin < len(content):
                changed = bytearray(content)
                changed[begin] ^= 1 << draw(st.integers(0, 7))
                content = bytes(changed)
            case "cut":
                content = content[:begin]
            case "lose":
                content = content[:begin] + content[end:]
            case "double":
                content = content[:end] + content[begin:end] + content[end:]
            case "overwrite":
                content = content[:begin] + strange + content[begin + len(strange) :]
            case "insert":
                content = content[:begin] + strange + content[begin:]
            case "front":
                content = strange + content
            case "zero":
                content = content[:begin] + bytes(end - begin) + content[end:]
    return content


STRANGE_BYTES = (
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x00" * 8, b"\xff" * 8, b"\n", b"\n\n", b"\r\n", b"{", b"}",
    b"[" * 3000, b"\x80\x04\x95", b"PK\x03\x04", b"9" * 5000, b"NaN", b"-Infinity", b"1e999", b"null", b"\xe2\x80\xa8",
    b'"', b"\\ud800", b": &a [*a]\n", b"!!python/object/apply:os.system ['true']", b"!!timestamp x", b"!!int ''",
    b"!!float ''", b"!!bool x", b"!!binary x", b"!!set {}", b"<<: x", b"\t", b"%YAML 9.9\n---\n", b"---\n", b"...\n",
    b"*x", b"0x" + b"f" * 9000, b"2024-99-99", b"? [a]\n", b"1:2:3",
)  # fmt: skip


@st.composite
def twisted(draw: st.DrawFn, values: Any) -> Any:
    """``values`` (what JSON or YAML holds) with one to three of its parts replaced, taken out, renamed or doubled."""
    values = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(values))
        if not places:
            return draw(st.sampled_from(STRANGE))
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "wrap", "rename", "double", "other"]))
        if what == "remove":
            del holder[key]
        elif what == "wrap":
            holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}, [holder[key]] * 50]))
        elif what == "rename" and isinstance(holder, dict):
            holder[str(draw(st.sampled_from(["", "x", "__class__", "\0", "../x", "\ud800", "0"])))] = holder.pop(key)
        elif what == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif what == "other":
            other, other_key = draw(st.sampled_from(places))
            holder[key] = copy.deepcopy(other[other_key])
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(STRANGE)))  # or the next change would be to `STRANGE`
    return values


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in nested mappings and lists; of a long list, its first items."""
    if isinstance(values, dict | list):
        for key in list(values)[:50] if isinstance(values, dict) else range(min(len(values), 5)):
            yield values, key
            yield from _places(values[key])


def as_json(values: Any) -> bytes:
    """JSON as a careless program writes it: NaN, numbers of any length, lone surrogates, any depth."""
    return json.dumps(values).replace(json.dumps(DEEP), "[" * 3000 + "]" * 3000).encode()


def as_yaml(values: Any) -> bytes:
    """The same in YAML."""
    text = yaml.safe_dump(values, sort_keys=False)
    return str(text).replace(f"'{DEEP}'", "[" * 300 + "]" * 300).encode()


def json_files(content: bytes) -> st.SearchStrategy[bytes]:
    """A file of JSON, wrong."""
    return damaged(content) | twisted(json.loads(content)).map(as_json)


def yaml_files(content: bytes) -> st.SearchStrategy[bytes]:
    """A file of YAML, wrong."""
    return damaged(content) | twisted(yaml.safe_load(content)).map(as_yaml)


def json_line_files(content: bytes) -> st.SearchStrategy[bytes]:
    """A file of JSON objects, one a line, wrong."""
    lines = content.splitlines()

    def with_line(number: int) -> st.SearchStrategy[bytes]:
        changed = twisted(json.loads(lines[number])).map(as_json)
        return changed.map(lambda line: b"\n".join([*lines[:number], line, *lines[number + 1 :], b""]))

    return damaged(content) | st.integers(0, len(lines) - 1).flatmap(with_line)
