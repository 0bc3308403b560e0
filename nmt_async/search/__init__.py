"""How a translation is found: beam search and sampling over one model or several.

from nmt_async.search import SearchOptions, beam_search

hypotheses = beam_search(model, source, source_lengths, SearchOptions(beam_size=5).search(wanted=3))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.search.beam import beam_search
    from nmt_async.search.ensemble import Ensemble, ModelPath, load_models
    from nmt_async.search.greedy import greedy_search
    from nmt_async.search.options import SamplingMethod, Search, SearchOptions, Weights
    from nmt_async.search.penalties import Penalties
    from nmt_async.search.sampling import sample
    from nmt_async.search.trace import Hypothesis

__all__ = [
    "Ensemble",
    "Hypothesis",
    "ModelPath",
    "Penalties",
    "SamplingMethod",
    "Search",
    "SearchOptions",
    "Weights",
    "beam_search",
    "greedy_search",
    "load_models",
    "sample",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        "beam_search": "beam",
        "greedy_search": "greedy",
        **dict.fromkeys(("Ensemble", "ModelPath", "load_models"), "ensemble"),
        **dict.fromkeys(("SamplingMethod", "Search", "SearchOptions", "Weights"), "options"),
        "Penalties": "penalties",
        "sample": "sampling",
        "Hypothesis": "trace",
    },
)
