"""Workers compute on quantised parameters, and what that leaves out of them is never lost: error feedback.

After an update u, Aji and Heafield (2019, section 3.4; 2020) quantise the parameters, keep the error, and add it to
what the next update makes:

q_(t+1) = Q(q_t + e_t + u_t),  e_(t+1) = q_t + e_t + u_t - q_(t+1).

So q_t + e_t is never quantised: it is what the updates alone have made of the parameters. The server keeps that sum,
which is one vector instead of two, and pulls give Q of it. (Marian drops the error of the first quantisation; here
none is dropped, since the parameters may be those of a trained model.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from nmt_async.sync.corrections.look_ahead import LookAhead

Quantise = Callable[[Tensor], None]
"""Makes a vector (size,) of parameters that of the quantised model, in place."""


class QuantizedPulls(LookAhead):
    """What pulls would give, quantised.

    Args:
        initial: the parameters (size,) at the beginning.
        quantise: what is done to a buffer.
        ahead: what pulls would give; None: the parameters.
    """

    def __init__(self, initial: Tensor, quantise: Quantise, ahead: LookAhead | None = None) -> None:
        if ahead is None:
            super().__init__(initial)
        else:
            self.parameters = ahead.parameters
        self.quantise = quantise
        self.ahead = ahead

    def updating(self) -> Tensor:
        """As in `LookAhead`."""
        return super().updating() if self.ahead is None else self.ahead.updating()

    def move(self, parameters: Tensor) -> None:
        """As in `LookAhead`."""
        if self.ahead is None:
            super().move(parameters)
        else:
            self.ahead.move(parameters)

    def write(self, buffer: Tensor) -> None:
        """As in `LookAhead`."""
        if self.ahead is None:
            buffer.copy_(self.parameters)
        else:
            self.ahead.write(buffer)
        self.quantise(buffer)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """As in `LookAhead`."""
        return {} if self.ahead is None else self.ahead.tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `LookAhead`."""
        if self.ahead is not None:
            self.ahead.restore(tensors)
