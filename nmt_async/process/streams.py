"""The order of what a parent and its children queue on one device, or on several that own a part each.

A call of torch on a CUDA device only queues work on the calling process's stream, and the streams of several processes
know nothing of each other. So who hands memory on says when it is ready:

- The parent marks an event on its stream (`hand_over`) before it tells a child to begin; where several devices own
  parts, one on its stream of each. The child's stream waits for these events (`follow`), and its host does not. So all
  that the parent has queued until then, be it what it wrote for the child or what it read of the child, is done before
  anything that the child queues from then on.
- A child waits for its own stream (`finish`) before it answers. It has to anyway, since it tells numbers that it
  computed. So the parent needs no event: once it hears the answer, all that the child queued is done.

Nobody waits for a device as a whole. On the CPU everything is done when its call returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Streams(Protocol):
    """What a parent and its children tell each other's streams; hand it to each child as one of its arguments."""

    def hand_over(self, child: int) -> None:
        """In the parent, before it tells the child of this number to begin."""

    def follow(self, child: int) -> None:
        """In the child of this number, once it is told to begin and before it touches what is shared."""

    def finish(self) -> None:
        """In a child, before it answers."""


def streams_on(devices: Sequence[torch.device], children: int) -> Streams:
    """Those for memory on ``devices``.

    Raises:
        RuntimeError: a device has no events that processes can share.
    """
    cuda = [device for device in devices if device.type == "cuda"]
    return EventStreams(cuda, children) if cuda else InOrder()


class InOrder:
    """Streams of the CPU, where nothing is queued."""

    def hand_over(self, child: int) -> None:
        """Nothing to tell."""

    def follow(self, child: int) -> None:
        """Nothing to wait for."""

    def finish(self) -> None:
        """Nothing is left to do."""


class EventStreams:
    """Streams of CUDA devices: each process's current one on its current device.

    An event may be marked again as soon as its child has answered: the child's stream has waited by then.

    Args:
        devices: those of the parent's streams, each once.
        children: how many there are at once.
    """

    def __init__(self, devices: Sequence[torch.device], children: int) -> None:
        self._devices = devices
        # They must outlive the children's: CUDA says nothing of an event whose maker has let it go.
        self._events: list[list[Any]] = [[] for _ in range(children)]
        self._handles: list[list[Any]] = [[] for _ in range(children)]
        for device in devices:
            with torch.cuda.device(device):  # whose they become
                for events, handles in zip(self._events, self._handles, strict=True):
                    events.append(torch.cuda.Event(interprocess=True))  # type: ignore[no-untyped-call]
                    handles.append(events[-1].ipc_handle())

    def __getstate__(self) -> dict[str, Any]:
        return {"devices": self._devices, "handles": self._handles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._devices, self._handles = state["devices"], state["handles"]
        self._opened: dict[int, list[Any]] = {}

    def hand_over(self, child: int) -> None:
        """As in `Streams`."""
        for device, event in zip(self._devices, self._events[child], strict=True):
            event.record(torch.cuda.current_stream(device))

    def follow(self, child: int) -> None:
        """As in `Streams`. A copy between two devices waits for the streams of both. So it is enough that the child's
        stream on its own device waits for the events of all."""
        if child not in self._opened:
            marks = zip(self._devices, self._handles[child], strict=True)
            self._opened[child] = [torch.cuda.Event.from_ipc_handle(*mark) for mark in marks]  # type: ignore[no-untyped-call]
        for event in self._opened[child]:
            event.wait(torch.cuda.current_stream())

    def finish(self) -> None:
        """As in `Streams`."""
        torch.cuda.current_stream().synchronize()
