"""The server where its vectors are: nothing leaves their device, and an update makes the process wait once at most."""

from __future__ import annotations

import pytest
import torch
from apart import APART, apart, on_cpu
from driven_servers import CASES, Case, Driven, assert_equal, gradient

from nmt_async.sync import CorrectionSettings
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.between.outer_settings import OuterSettings


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_leaves_the_device_and_an_update_waits_once(case: Case) -> None:
    here = Driven(case, torch.device("cpu"))
    with apart() as counted:
        there = Driven(case, APART)
        counted.clear()
        for driven in (here, there):
            driven.rounds(range(7))
        assert there.server.version >= 2
        assert counted == {"read": there.server.version}, "the norm, and nothing else"
        values, tensors = there.state()
        assert bool(values["buffer"].get("held")) == case.rule.ordered, "an early push is stored by itself"
        assert values == here.state()[0]
        assert_equal(tensors, here.state()[1])
        again = Driven(case, APART)
        again.server.restore(values, tensors)
        again.at, counted["read"] = {}, 0
        for driven in (again, here):
            driven.at = {}
            driven.server.ring.release_all()
            driven.rounds(range(7, 12))
        assert_equal(again.state()[1], here.state()[1])


def test_quantised_pulls_are_computed_where_they_are() -> None:
    case = Case(corrections=CorrectionSettings(quantized=True))
    here = Driven(case, torch.device("cpu"))
    with apart():
        there = Driven(case, APART)
        for driven in (here, there):
            driven.rounds(range(6))
        assert torch.equal(on_cpu(there.server.offered), here.server.offered)
        assert not torch.equal(here.server.offered, here.server.parameters)


@pytest.mark.parametrize("fragment", [None, 1])
def test_an_outer_step_is_made_where_the_parameters_are(fragment: int | None) -> None:
    made = []
    with apart() as counted:
        for device in (torch.device("cpu"), APART):
            settings = OuterSettings(rate=0.7, momentum=0.9, fragments=2, dtype="bfloat16")
            parameters, moved = gradient(1).to(device), gradient(2).to(device)
            outer = OuterStep(settings, parameters)
            counted.clear()
            made.append(on_cpu(outer.step(outer.moved(moved, fragment), 2, fragment)))
            assert not counted
    assert torch.equal(*made)


def test_what_is_not_on_the_device_is_noticed() -> None:
    """That of which the tests above make sure can fail."""
    with apart() as counted:
        vector = torch.zeros(3, device=APART)
        with pytest.raises(RuntimeError, match="on two devices"):
            vector.add_(torch.ones(3))
        assert float(vector.add_(torch.tensor(1.0)).sum()) == 3.0
        vector.copy_(torch.ones(3))
        assert counted == {"read": 1, "copied": 1}
