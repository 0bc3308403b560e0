"""The options of translating, the same for ``translate``, ``evaluate`` and validation during training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nmt_async.decoding.beam import Search
from nmt_async.errors import UserError, shown
from nmt_async.model.linear import PRECISIONS
from nmt_async.options import option

SEARCH = "Search"
COMPUTING = "Computing"


@dataclass(frozen=True)
class DecodingOptions:
    """How lines are translated.

    Raises:
        UserError: a value that makes no sense.
    """

    beam_size: int = option(
        5, "Hypotheses followed for each sentence; 1 is greedy search.", group=SEARCH, flags=("--beam-size", "-b")
    )
    normalize: float = option(
        0.6, "Exponent of the length by which a hypothesis' score is divided; 0 for none.",
        group=SEARCH, flags=("--normalize", "-n"),
    )  # fmt: skip
    max_length: int = option(
        512, "Longest source in subwords, end mark counted; a longer one is cut there, with a warning.", group=SEARCH
    )
    max_length_factor: float = option(
        3.0, "Longest translation, as a multiple of its source's subwords (and 10 more).", group=SEARCH
    )
    mini_batch: int = option(64, "Sentences translated at once.", group=COMPUTING)
    mini_batch_words: int = option(
        4096, "Source subwords translated at once, padding counted; bounds memory.", group=COMPUTING
    )
    maxi_batch: int = option(
        16, "Mini-batches read ahead, where input is ready, and sorted by length.", group=COMPUTING
    )
    device: str = option("cpu", "Where to compute: cpu, cuda or, for example, cuda:1.", group=COMPUTING)
    threads: int | None = option(
        None, "CPU threads (else torch's choice: the cores).", group=COMPUTING, flags=("--threads", "--cpu-threads")
    )
    precision: str = option(
        "float32", "Numbers that matrices are multiplied in; int8: two to three times as fast on a CPU, scores are a "
        "little off.",
        group=COMPUTING, choices=PRECISIONS,
    )  # fmt: skip

    def __post_init__(self) -> None:
        smallest = {"beam_size": 1, "max_length": 2, "mini_batch": 1, "mini_batch_words": 1, "maxi_batch": 1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')}: {getattr(self, name)} is too small; give {least} or more."
                )
        if not 0.0 <= self.normalize <= 10.0:
            raise UserError(f"--normalize: {self.normalize:g} is not an exponent between 0 and 10.")
        if not 0.0 < self.max_length_factor <= 1000.0:
            raise UserError(f"--max-length-factor: {self.max_length_factor:g} is not above 0 and at most 1000.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads: {self.threads} is too small; give 1 or more.")

    def search(self, wanted: int = 1) -> Search:
        """The part that beam search needs, to return ``wanted`` hypotheses a sentence."""
        return Search(self.beam_size, self.normalize, self.max_length_factor, wanted=min(wanted, self.beam_size))


def device_of(name: str) -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, OverflowError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: {shown(name)} is not known; give cpu, cuda or, for example, cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"only {count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
        raise UserError(f"--device {name}: torch finds {found} here; give --device cpu.")
    return device


def use_device(options: DecodingOptions) -> torch.device:
    """The device the options name; from here on this process computes with as many CPU threads as they say.

    Raises:
        UserError: there is no such device.
    """
    device = device_of(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return device
