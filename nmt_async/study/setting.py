"""A setting: one training run of a study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmt_async.planning.modes import mode_name


@dataclass(frozen=True)
class Setting:
    """One training run.

    Attributes:
        condition: what it shares with the runs of other seeds, as people read it: ``hybrid:4``, ``async@0.0005``.
        seed: of the run.
        options: of ``train``, by their keys in a configuration file, where they are not the defaults; without seed
            and folder.
    """

    condition: str
    seed: int
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folder and files: ``hybrid-4.seed1``."""
        return f"{re.sub(r'[^A-Za-z0-9.@+]+', '-', self.condition).strip('-')}.seed{self.seed}"

    @property
    def mode(self) -> str:
        """How it updates, without anything else: ``sync``, ``hybrid:4``, ``local:4``."""
        return mode_name(self.options)
