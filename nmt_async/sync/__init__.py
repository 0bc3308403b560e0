"""How pushes become updates: pure, tensors in and tensors out; no process, clock, file or device choice.

from nmt_async.sync import Hybrid, OptimizerSettings, ParameterServer, Push, Schedule
from nmt_async.quantity import Quantity

server = ParameterServer(buffers, Hybrid(4), Schedule(0.001, Quantity(1000, "updates")), OptimizerSettings())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.sync.corrections.build import Corrections, build_corrections
    from nmt_async.sync.corrections.correction import Applied, Arrival, Correction
    from nmt_async.sync.corrections.settings import CorrectionSettings
    from nmt_async.sync.journal import Event, Kind, effective
    from nmt_async.sync.ledger import Ledger, ledger_of
    from nmt_async.sync.optimizers.settings import OptimizerSettings
    from nmt_async.sync.push import Answer, Push, Update, Verdict
    from nmt_async.sync.rules import (
        MODES,
        RULES,
        Adaptive,
        Asynchronous,
        Hybrid,
        Round,
        Rule,
        Standing,
        Synchronous,
        Waiting,
        rule_for,
    )
    from nmt_async.sync.schedule import Progress, Schedule
    from nmt_async.sync.server import ParameterServer

__all__ = [
    "MODES", "RULES", "Adaptive", "Answer", "Applied", "Arrival", "Asynchronous", "Correction", "CorrectionSettings",
    "Corrections", "Event", "Hybrid", "Kind", "Ledger", "OptimizerSettings", "ParameterServer", "Progress", "Push",
    "Round", "Rule", "Schedule", "Standing", "Synchronous", "Update", "Verdict", "Waiting", "build_corrections",
    "effective", "ledger_of", "rule_for",
]  # fmt: skip

_RULES = (
    "MODES", "RULES", "Adaptive", "Asynchronous", "Hybrid", "Round", "Rule", "Standing", "Synchronous", "Waiting",
    "rule_for",
)  # fmt: skip
__getattr__, __dir__ = named_in(
    __name__,
    {
        **dict.fromkeys(("Event", "Kind", "effective"), "journal"),
        **dict.fromkeys(("Ledger", "ledger_of"), "ledger"),
        **dict.fromkeys(("Answer", "Push", "Update", "Verdict"), "push"),
        **dict.fromkeys(_RULES, "rules"),
        **dict.fromkeys(("Progress", "Schedule"), "schedule"),
        **dict.fromkeys(("Applied", "Arrival", "Correction"), "corrections.correction"),
        "CorrectionSettings": "corrections.settings",
        "OptimizerSettings": "optimizers.settings",
        **dict.fromkeys(("Corrections", "build_corrections"), "corrections.build"),
        "ParameterServer": "server",
    },
)
