"""A setting: one training run of a study, as options of ``train`` and as words of its command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import flags_of, from_mapping, to_mapping
from nmt_async.planning.modes import mode_name
from nmt_async.training.cluster_options import MEASURED
from nmt_async.training.options import FITTED, TrainOptions, options_of_run


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

    def option(self, key: str) -> Any:
        """The value of an option of ``train``, also where it is the default."""
        return self.options.get(key, getattr(TrainOptions, key.replace("-", "_")))

    @property
    def mode(self) -> str:
        """How it updates, without anything else: ``sync``, ``hybrid:4``, ``local:4``."""
        return mode_name(self.options)


def named(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a setting with the optimizer and the prediction that they mean where they name none.

    So a result says with what it was made, and is none of another default.

    Args:
        where: they are from, for a sentence about what cannot be.

    Raises:
        UserError: they cannot be.
    """
    train = from_mapping(TrainOptions, options, where)
    if train.workers is MEASURED:
        raise UserError(f"{where}: workers {MEASURED} may be another number in each run; give a number.")
    if train.batch_memory is FITTED:
        raise UserError(f"{where}: batch-memory {FITTED} may be another amount in each run; give an amount.")
    meant = {"optimizer": train.settings().name, "weight-prediction": train.settled_prediction()}
    return {**meant, **options}


NOT_OF_A_SETTING = ("seed", "out", "dry-run")


def given_options(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a run's configuration that are not the defaults; those that this version does not know are kept.

    Raises:
        UserError: a value cannot be; ``where`` names the file.
    """
    defaults = to_mapping(TrainOptions())
    known = {key: value for key, value in config.items() if key in defaults}
    meant = {**config, **to_mapping(options_of_run(known, where))}
    return {
        key: value
        for key, value in meant.items()
        if key not in NOT_OF_A_SETTING and (key not in defaults or value != defaults[key])
    }


def typed(options: Mapping[str, Any]) -> list[str]:
    """Options of ``train`` by their keys, as words of its command line."""
    words: list[str] = []
    flags = flags_of(TrainOptions)
    for key, value in options.items():
        flag = flags.get(key, f"--{key}")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, str(value)]
    return words


def check_names(settings: Sequence[Setting]) -> None:
    """Every setting must have a name of its own.

    Raises:
        UserError: two have the same.
    """
    names: set[str] = set()
    for setting in settings:
        if setting.name in names:
            raise UserError(f"{shown(setting.condition)} with seed {setting.seed} is asked for twice.")
        names.add(setting.name)
