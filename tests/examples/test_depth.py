"""The study of depth: its conditions can be trained, and the first update of T-Fixup's models moves their output
equally far at every depth."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nmt_async.options import from_mapping
from nmt_async.study.declaration import read_declaration
from nmt_async.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "depth"
DECLARED = read_declaration(STUDY / "study.yaml")
ASKED = DECLARED.sizes["core"].settings
LAYERS = (2, 6, 12, 24)


@pytest.mark.parametrize("size", DECLARED.sizes)
def test_every_condition_is_the_model_and_the_schedule_that_its_name_says(size: str) -> None:
    for setting in DECLARED.sizes[size].settings:
        name = setting.condition.split()
        options = from_mapping(TrainOptions, setting.options, setting.condition)
        model = options.configuration(4000, 4000, joint=True)
        assert model.norm == {"t-fixup": "none"}.get(name[0], name[0])
        assert options.init == ("t-fixup" if name[0] == "t-fixup" else None)
        assert name[1] == f"{model.enc_depth}+{model.dec_depth}"
        assert options.rule().name.startswith(name[2])
        assert bool(options.lr_warmup.amount) == ("cold" not in name)
        assert options.settings().name == ("muon" if "muon" in name else "adam")
        assert (options.corrections().updates_ahead(0.75) > 0) == ("predicted" in name)
        schedule = options.schedule(options.stop_after)
        assert (schedule.start or schedule.warmup).amount == 200_000, "with and without warm-up the rate falls alike"


@pytest.fixture(scope="module")
def first_update() -> ModuleType:
    """The program that makes the document's table."""
    found = importlib.util.spec_from_file_location("first_update", STUDY / "first_update.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["first_update"] = module
    found.loader.exec_module(module)
    return module


@pytest.mark.numeric
def test_t_fixups_first_update_is_as_large_at_every_depth_and_post_norms_grows(first_update: ModuleType) -> None:
    changes = {model: [first_update.first_change(model, "gradient descent", layers) for layers in LAYERS]
               for model in ("T-Fixup", "post-norm")}  # fmt: skip
    assert max(changes["T-Fixup"]) < 2 * min(changes["T-Fixup"])
    assert changes["post-norm"][-1] > 3 * changes["post-norm"][0]
    assert all(ours < theirs / 4 for ours, theirs in zip(*changes.values(), strict=True))


@pytest.mark.numeric
def test_without_t_fixups_factors_the_first_update_explodes(first_update: ModuleType) -> None:
    changes = [first_update.first_change("no norm, Glorot", "gradient descent", layers) for layers in (2, 4)]
    assert changes[1] > 10 * changes[0]


@pytest.mark.parametrize("optimizer", ["Adam", "Muon"])
@pytest.mark.numeric
def test_with_other_optimizers_t_fixups_grows_less_than_the_square_root_of_depth(
    first_update: ModuleType, optimizer: str
) -> None:
    shallow, deep = (first_update.first_change("T-Fixup", optimizer, layers) for layers in (2, 12))
    assert deep < shallow * (12 / 2) ** 0.5


def test_the_program_prints_a_line_for_each_model_and_optimizer(first_update: ModuleType) -> None:
    head, rule, *rows = first_update.table((1, 2), width=16, seeds=1)
    assert head == "| | 1 + 1 | 2 + 2 |"
    assert {line.count("|") for line in (head, rule, *rows)} == {4}
    assert len(rows) == len(first_update.MODELS) * len(first_update.OPTIMIZERS)
