"""What ``compare`` is asked: ways of updating, seeds and a budget, as the settings to run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt_async.devices import ALL_GPUS
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import TrainedModelOptions
from nmt_async.options import from_mapping, option, to_mapping
from nmt_async.planning.modes import BEHIND, mode_options
from nmt_async.quantity import Quantity
from nmt_async.study.declaration import often
from nmt_async.study.setting import Setting, check_names, named
from nmt_async.training.cluster_options import available_cores
from nmt_async.training.optimizer_options import OptimizerOptions
from nmt_async.training.options import BatchSizeOptions, TrainOptions, stop_quantity
from nmt_async.training.staleness_options import PredictionOptions

if TYPE_CHECKING:
    from nmt_async.text.prepared import PreparedData

GROUP = "Comparison"


@dataclass(frozen=True)
class WhereOptions:
    """Where every run of a comparison computes."""

    workers: int | None = option(None, "Workers of each run (default: as train's).", group="Devices")
    devices: str | None = option(None, f"cpu, or CUDA devices as in '0,1' (default: {ALL_GPUS}).", group="Devices")
    cluster: str = option(
        "processes",
        "processes: real workers, one run at a time; simulated: virtual workers, several runs side by side.",
        group="Devices",
        choices=("processes", "simulated"),
    )
    profile: str | None = option(
        None, "Profile of the simulated cluster: a name or a file (default: paper).", group="Devices", metavar="PROFILE"
    )


@dataclass(frozen=True)
class CompareOptions(WhereOptions, TrainedModelOptions, OptimizerOptions, PredictionOptions, BatchSizeOptions):
    """What is compared, how long, and where it is written."""

    modes: str = option(
        "sync,async,hybrid",
        "Ways of updating: sync, sync:N, async, hybrid:N, adaptive:N, local:N (each worker sums N batches), and behind "
        f"them {', '.join(BEHIND)}; @RATE after a mode gives it its own learning rate.",
        group=GROUP,
        metavar="MODE,…",
    )
    budget: Quantity | None = option(
        None,
        "Each run's length: tokens (2Mt), updates, epochs, minutes (30m) or hours of training.",
        group=GROUP,
        parse=stop_quantity,
        metavar="AMOUNT",
    )
    seeds: str = option("1,2", "Each mode is run with each of these seeds.", group=GROUP, metavar="SEED,…")
    intervals: str = option(
        "seeds",
        "What the intervals are over. seeds: seeds and sentences, which needs two seeds; sentences: "
        "only the sentences, of one seed.",
        group=GROUP,
        choices=("seeds", "sentences"),
    )
    baseline: str | None = option(
        None, "The mode that others are compared with (default: sync, else the first).", group=GROUP
    )
    validations: int = option(12, "How many validations each run makes.", group=GROUP)
    valid_sentences: int = option(0, "Translate this many validation sentences only; 0: all.", group=GROUP)
    valid_beam_size: int = option(1, "Beam size of validation's translations.", group=GROUP)
    jobs: int | None = option(None, "Runs side by side (default: one a core if simulated, else one).", group=GROUP)
    out: Path = option(Path("comparison"), "The comparison's folder; what is finished in it is kept.", group=GROUP)

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"--jobs: {self.jobs} is too few; give 1 or more.")
        if self.budget is None:
            raise UserError("--budget is missing; give each run's length, such as 2Mt (target tokens) or 30m.")
        if len(self.seed_list()) < 2 and self.intervals == "seeds":
            raise UserError(
                f"--seeds {self.seeds}: an interval over seeds needs two or more; give --seeds 1,2, or --intervals "
                f"sentences for one over the validation sentences alone."
            )
        if len(self.seed_list()) > 1 and self.intervals == "sentences":
            raise UserError(
                f"--intervals sentences is for one seed, and --seeds {self.seeds} names {len(self.seed_list())}; leave "
                f"--intervals out, or give one seed."
            )
        self.base()

    def mode_list(self) -> list[str]:
        """The modes as typed."""
        return [mode.strip() for mode in self.modes.split(",") if mode.strip()]

    def seed_list(self) -> list[int]:
        """The seeds.

        Raises:
            UserError: one is not a seed.
        """
        try:
            return [int(seed) for seed in self.seeds.split(",") if seed.strip()]
        except ValueError:
            raise UserError(f"--seeds: {shown(self.seeds)} is not a list of numbers such as 1,2,3.") from None

    def base_name(self) -> str:
        """The mode that others are compared with.

        Raises:
            UserError: it is not among the modes.
        """
        modes = self.mode_list()
        if self.baseline is None:
            return next((mode for mode in modes if mode.split("@")[0] == "sync"), modes[0])
        if self.baseline not in modes:
            raise UserError(f"--baseline: {shown(self.baseline)} is not among the modes {', '.join(modes)}.")
        return self.baseline

    def base(self) -> dict[str, Any]:
        """The options of ``train`` that all runs share, where they are not the defaults.

        Raises:
            UserError: they do not fit together, or the budget is too small.
        """
        assert self.budget is not None
        defaults, given = to_mapping(TrainOptions()), to_mapping(self)
        shared = {field.name.replace("_", "-") for field in fields(TrainOptions)} - {"out"}
        return {key: given[key] for key in given if key in shared and given[key] != defaults[key]} | often(
            self.budget, self.validations
        )

    def side_by_side(self) -> int:
        """Runs at once."""
        if self.jobs is not None:
            return self.jobs
        from nmt_async.study.runner import side_by_side

        return side_by_side(self.cluster, available_cores(), available_cores())


def settings_of(options: CompareOptions, data: PreparedData) -> list[Setting]:
    """All runs of a comparison, those of the first seed first.

    Raises:
        UserError: an unknown mode, options that do not fit, one asked for twice, or a budget too small to validate.
    """
    modes, base = options.mode_list(), options.base()
    if not modes:
        raise UserError("--modes names none; give some of sync, async, hybrid:N, local:N.")
    options.base_name()
    asked = {mode: named({**base, **mode_options(mode)}, f"--modes {mode}") for mode in modes}
    settings = [Setting(mode, seed, asked[mode]) for seed in options.seed_list() for mode in modes]
    for number, setting in enumerate(settings):
        train = from_mapping(TrainOptions, {**setting.options, "seed": setting.seed}, f"--modes {setting.condition}")
        if number < len(modes):  # of the first seed: the others differ in nothing that is checked
            _check(setting.condition, train, options, data)
    check_names(settings)
    return settings


def _check(condition: str, train: TrainOptions, options: CompareOptions, data: PreparedData) -> None:
    """Finds what the run itself would only find when it starts."""
    from nmt_async.training.expectation import expected
    from nmt_async.training.parts import checked_configuration, training_plan

    checked_configuration(train, data)
    batch = expected(train, training_plan(train, data)).largest_batch
    every = train.valid_freq
    if every.unit == "tokens" and every.amount < batch:
        raise UserError(
            f"--budget {options.budget} is too small for {options.validations} validations of {condition}: each of "
            f"its updates holds {batch:,.0f} tokens; give more, or fewer --validations."
        )
