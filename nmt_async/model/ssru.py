"""The simpler simple recurrent unit, SSRU (Kim et al. 2019, section 3.1), in the place of a decoder's self-attention.

With forget gates f_t = sigmoid(W_f x_t + b_f), a cell c_t = f_t c_{t-1} + (1 - f_t) W x_t starts from zero, and the
output is relu(c_t). No matrix meets the cell, so both products are computed for all positions at once, and only
elementwise operations go from position to position. What a translation has to remember of its past is one vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.linear import Linear


class SSRU(nn.Module):
    """The unit; W and W_f lie in one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_and_forget = Linear(width, 2 * width, bias=False)
        self.forget_bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (batch, length, d) after each position of ``x`` (batch, length, d)."""
        inputs, forget = self._gated(x)
        cell, cells = torch.zeros_like(inputs[:, 0]), []
        for added, kept in zip(inputs.unbind(1), forget.unbind(1), strict=True):
            cell = torch.lerp(added, cell, kept)
            cells.append(cell)
        return F.relu(torch.stack(cells, dim=1))

    def step(self, x: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs for the newest inputs ``x`` (…, d), and the cells after them, both (…, d).

        Args:
            cell: before them, (…, d).
        """
        inputs, forget = self._gated(x)
        cell = torch.lerp(inputs, cell, forget)
        return F.relu(cell), cell

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x and the forget gates, each (…, d)."""
        inputs, forget = self.input_and_forget(x).chunk(2, dim=-1)
        return inputs, torch.sigmoid(forget + self.forget_bias)
