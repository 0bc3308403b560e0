"""The order of what a parent and its children queue on one device.

A call of torch on a CUDA device only queues work on the calling process's stream, and the streams of several processes
know nothing of each other. So who hands memory on says when it is ready:

- The parent marks an event on its stream (`hand_over`) before it tells a child to begin. The child's stream waits for
  that event (`follow`), and its host does not. So all that the parent has queued until then, be it what it wrote for
  the child or what it read of the child, is done before anything that the child queues from then on.
- A child waits for its own stream (`finish`) before it answers. It has to anyway, since it tells numbers that it
  computed. So the parent needs no event: once it hears the answer, all that the child queued is done.

Nobody waits for a device as a whole. On the CPU everything is done when its call returns.
"""

from __future__ import annotations

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


def streams_on(device: torch.device, children: int) -> Streams:
    """Those for memory on ``device``.

    Raises:
        RuntimeError: the device has no events that processes can share.
    """
    return EventStreams(device, children) if device.type == "cuda" else InOrder()


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
        device: that of the parent's stream.
        children: how many there are at once.
    """

    def __init__(self, device: torch.device, children: int) -> None:
        self._device = device
        with torch.cuda.device(device):
            # They must outlive the children's: CUDA says nothing of an event whose maker has let it go.
            self._events = [torch.cuda.Event(interprocess=True) for _ in range(children)]  # type: ignore[no-untyped-call]
            self._handles = [event.ipc_handle() for event in self._events]  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self._device, "handles": self._handles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._device, self._handles = state["device"], state["handles"]
        self._opened: dict[int, torch.cuda.Event] = {}

    def hand_over(self, child: int) -> None:
        """As in `Streams`."""
        self._events[child].record(torch.cuda.current_stream(self._device))

    def follow(self, child: int) -> None:
        """As in `Streams`. A copy between two devices waits for the streams of both, so one of them is enough."""
        if child not in self._opened:
            opened = torch.cuda.Event.from_ipc_handle(self._device, self._handles[child])  # type: ignore[no-untyped-call]
            self._opened[child] = opened
        self._opened[child].wait(torch.cuda.current_stream())

    def finish(self) -> None:
        """As in `Streams`."""
        torch.cuda.current_stream().synchronize()
