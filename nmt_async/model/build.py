"""The one place where a configuration becomes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.recurrent import RecurrentModel
from nmt_async.model.transformer import Transformer
from nmt_async.model.translation_model import TranslationModel

MODELS: dict[str, type[Transformer] | type[RecurrentModel]] = {"transformer": Transformer, "rnn": RecurrentModel}


def build_model(
    configuration: ModelConfiguration, seed: int = 1, initialisation: str | None = None
) -> TranslationModel:
    """The model that the configuration describes, with the initial parameters that belong to the seed.

    Args:
        initialisation: of a Transformer, as it takes it; None: as suits the model.

    Raises:
        ValueError: this version knows no such model, or none that begins so.
    """
    if configuration.model not in MODELS:
        raise ValueError(f"there is no model called {configuration.model!r}")
    kind = MODELS[configuration.model]
    if initialisation is None:
        return kind(configuration, seed)
    if not issubclass(kind, Transformer):
        raise ValueError(f"a model of type {configuration.model} begins in one way only")
    return kind(configuration, seed, initialisation)


class _NothingDrawn(TorchFunctionMode):
    """Within, what fills a tensor with random numbers leaves it as it is."""

    FILLING = (Tensor.uniform_, Tensor.normal_, nn.init.kaiming_uniform_, nn.init.uniform_)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function in self.FILLING:
            return next(iter([*args, *(kwargs or {}).values()]))
        return function(*args, **(kwargs or {}))


def build_unfilled(configuration: ModelConfiguration) -> TranslationModel:
    """The same model with parameters that mean nothing, for one that is given others at once; saves time and memory."""
    with _NothingDrawn():
        return build_model(configuration)
