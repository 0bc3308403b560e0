"""From raw text to batches of subwords: corpora, cleaning, vocabularies, the prepared folder, the plan of batches.

from nmt_async.text import BatchPlan, PreparedData

data = PreparedData.open(Path("data"))
plan = BatchPlan(data.train.source.lengths, data.train.target.lengths, budget=2048, seed=1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.text.batch import Batch
    from nmt_async.text.options import PrepareOptions
    from nmt_async.text.plan import BatchId, BatchPlan
    from nmt_async.text.preparation import prepare
    from nmt_async.text.prepared import ParallelStore, PreparedData
    from nmt_async.text.vocabulary import Vocabulary, train_vocabulary

__all__ = [
    "Batch",
    "BatchId",
    "BatchPlan",
    "ParallelStore",
    "PrepareOptions",
    "PreparedData",
    "Vocabulary",
    "prepare",
    "train_vocabulary",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        "Batch": "batch",
        "PrepareOptions": "options",
        **dict.fromkeys(("BatchId", "BatchPlan"), "plan"),
        "prepare": "preparation",
        **dict.fromkeys(("ParallelStore", "PreparedData"), "prepared"),
        **dict.fromkeys(("Vocabulary", "train_vocabulary"), "vocabulary"),
    },
)
