"""A pull is one whole version, without locks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nmt_async.sync.ring import ParameterRing

READERS = 3


class AnyInterleaving(RuleBasedStateMachine):
    """Readers come and go while versions are written; as many buffers as readers, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = ParameterRing(torch.zeros(READERS + 1, 4))
        self.version = 0
        self.reading: dict[int, tuple[int, int]] = {}

    @rule(reader=st.integers(0, READERS - 1))
    def acquire(self, reader: int) -> None:
        if reader in self.reading:
            with pytest.raises(ValueError, match="holds a buffer already"):
                self.ring.acquire(reader)
        else:
            self.reading[reader] = (self.ring.acquire(reader), self.version)

    @rule(reader=st.integers(0, READERS - 1))
    def release(self, reader: int) -> None:
        self.ring.release(reader)
        self.reading.pop(reader, None)

    @rule()
    def write(self) -> None:
        buffer = self.ring.writable()
        assert buffer.eq(self.version).all(), "a new version begins as a copy of the current one"
        self.version += 1
        buffer.fill_(self.version)

    @precondition(lambda self: not self.reading)
    @rule()
    def write_alone(self) -> None:
        before = self.ring.index
        self.write()
        assert self.ring.index == before, "nothing is copied where nobody reads"

    @invariant()
    def the_current_is_the_newest(self) -> None:
        assert self.ring.current.eq(self.version).all()

    @invariant()
    def each_reader_sees_the_version_it_began_with(self) -> None:
        for index, version in self.reading.values():
            assert self.ring.buffers[index].eq(version).all()


AnyInterleaving.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyInterleaving = AnyInterleaving.TestCase
