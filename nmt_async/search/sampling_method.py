"""How the next subword is drawn from a model's distribution: all of it, its top k, or its nucleus; hotter or colder."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.errors import UserError, shown

FULL, TOP_K, NUCLEUS = "full", "topk", "nucleus"
SYNTAX = "full [TEMPERATURE], topk K [TEMPERATURE] or nucleus P [TEMPERATURE]"


@dataclass(frozen=True)
class SamplingMethod:
    """As Marian's ``--output-sampling``.

    Attributes:
        kind: ``full``; ``topk``: the `top_k` likeliest subwords (Fan et al. 2018); ``nucleus``: the likeliest ones that
            together have the probability `top_p`, the one that reaches it included (Holtzman et al. 2020).
        temperature: log-probabilities of those are divided by it; the nucleus is found before.
    """

    kind: str = FULL
    top_k: int = 10
    top_p: float = 0.9
    temperature: float = 1.0

    @classmethod
    def parse(cls, text: str) -> SamplingMethod:
        """``full``, ``full 0.8``, ``topk 10``, ``topk 10 0.8``, ``nucleus 0.9 0.8``; commas or colons for spaces.

        Raises:
            UserError: it is none of them.
        """
        kind, *numbers = re.split(r"[\s,:]+", text.strip())
        most = 1 if kind == FULL else 2
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = [math.nan]
        if (
            kind not in (FULL, TOP_K, NUCLEUS)
            or len(values) > most
            or not all(0 < value < math.inf for value in values)
        ):
            raise UserError(f"{shown(text)} is no way to sample; give {SYNTAX}.")
        size = values.pop(0) if values and kind != FULL else None
        temperature = values[0] if values else 1.0
        if kind == TOP_K and size is not None and not size.is_integer():
            raise UserError(f"{shown(text)}: {size:g} is not a number of subwords; give {SYNTAX}.")
        if kind == NUCLEUS and size is not None and size > 1:
            raise UserError(f"{shown(text)}: {size:g} is not a probability; give {SYNTAX}.")
        top_k = int(size) if kind == TOP_K and size is not None else cls.top_k
        top_p = size if kind == NUCLEUS and size is not None else cls.top_p
        return cls(kind, top_k, top_p, temperature)

    def __str__(self) -> str:
        size = {FULL: "", TOP_K: f" {self.top_k}", NUCLEUS: f" {self.top_p!r}"}[self.kind]
        return f"{self.kind}{size} {self.temperature!r}"

    def draw(self, log_probabilities: Tensor, uniform: Tensor) -> Tensor:
        """A subword for each row, (rows,), int64: the one at which the cumulated probability passes ``uniform``.

        Args:
            log_probabilities: (rows, vocabulary), minus infinity where a subword is forbidden.
            uniform: (rows,), float64, from 0 to below 1.
        """
        index: Tensor | None = None
        if self.kind == TOP_K:
            log_probabilities, index = log_probabilities.topk(min(self.top_k, log_probabilities.shape[1]), dim=1)
        elif self.kind == NUCLEUS:
            log_probabilities, index = log_probabilities.sort(dim=1, descending=True)
            probabilities = torch.softmax(log_probabilities.double(), dim=1)
            outside = probabilities.cumsum(dim=1) - probabilities >= self.top_p
            log_probabilities = log_probabilities.masked_fill(outside, -math.inf)
        # The likeliest at 0: a temperature near 0 would make all of them minus infinity otherwise.
        relative = log_probabilities.double() - log_probabilities.amax(dim=1, keepdim=True)
        cumulated = torch.softmax(relative / self.temperature, dim=1).cumsum(dim=1)
        passed = cumulated <= uniform[:, None] * cumulated[:, -1:]
        place = passed.sum(dim=1).clamp(max=cumulated.shape[1] - 1)
        return place if index is None else index.gather(1, place[:, None]).squeeze(1)
