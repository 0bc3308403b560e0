"""Machines that meet, agree and exchange, over real sockets; each is a thread here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from select import select
from typing import Any

import pytest
import torch
from torch.distributed.distributed_c10d import PrefixStore

from nmt_async.cluster.joint_replay import gloo_sum
from nmt_async.errors import RunFailure, UserError
from nmt_async.machines import meeting
from nmt_async.machines.exchange import Called, Exchange, Landed
from nmt_async.machines.group import MachineLost
from nmt_async.machines.invitation import Invitation
from nmt_async.machines.survivors import those_left
from nmt_async.machines.team import Team
from nmt_async.machines.watch import Watch
from nmt_async.sync.between.contribution import Contribution
from nmt_async.sync.between.outer import summed
from nmt_async.sync.between.ways import LAGGED, SYNC

PATIENCE = 60.0


def together(port: int, act: Callable[[Team], Any], machines: int = 2, ranks: bool = True) -> list[Any]:
    """What ``act`` comes to on each of the machines, in the order of their threads."""

    def one(rank: int) -> Any:
        invitation = Invitation("127.0.0.1", port, machines, rank if ranks else None)
        with Team(invitation, 30.0, lambda _: None) as team:
            return act(team)

    with ThreadPoolExecutor(machines) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(one, rank) for rank in range(machines)]]


def heard(exchange: Exchange) -> Called | Landed:
    """What happens next."""
    assert select([exchange.fileno()], [], [], PATIENCE)[0], "nothing happened"
    happened = exchange.take()
    assert happened is not None
    return happened


def test_they_tell_each_other_apart(port: int) -> None:
    names = together(port, lambda team: (team.rank, team.names), machines=3)
    assert [rank for rank, _ in names] == [0, 1, 2]
    assert len({tuple(each) for _, each in names}) == 1
    assert names[0][1][2].startswith("machine 2 (")


@pytest.mark.parametrize("machines", [2, 3])
def test_16_bit_vectors_are_summed_as_on_paper(port: int, machines: int) -> None:
    vectors = [torch.randn(101, generator=torch.Generator().manual_seed(rank)).bfloat16() for rank in range(machines)]

    def add(team: Team) -> torch.Tensor:
        vector = vectors[team.rank].clone()
        team.group.add(vector)
        return vector

    for found in together(port, add, machines):
        assert torch.equal(found, summed(vectors))


@pytest.mark.parametrize("machines", [2, 3, 4])
def test_a_replay_sums_as_the_machines_have_summed(port: int, machines: int) -> None:
    """To the last bit; also vectors that Gloo sends in several segments, and those that it cannot share out."""
    random = torch.Generator().manual_seed(1)
    vectors = [torch.randn(machines, size, generator=random) for size in (1, 7, 1001, 3 * 2**20 + 5)]

    def add(team: Team) -> list[torch.Tensor]:
        mine = [each[team.rank].clone() for each in vectors]
        for vector in mine:
            team.group.add(vector)
        return mine

    for found in together(port, add, machines):
        assert all(torch.equal(sum_, gloo_sum(list(each))) for sum_, each in zip(found, vectors, strict=True))


def test_without_ranks_they_come_as_they_come(port: int) -> None:
    assert sorted(together(port, lambda team: team.rank, ranks=False)) == [0, 1]


def test_only_one_has_a_rank(port: int) -> None:
    def one(rank: int) -> None:
        with Team(Invitation("127.0.0.1", port, 2, rank), 30.0, lambda _: None):
            pass

    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(one, rank).exception for rank in (0, 0, 1)]
        refused = [error for end in ends if (error := end(PATIENCE)) is not None]
    assert len(refused) == 1
    assert "--node-rank 0: a machine of this rank is at" in str(refused[0])


def test_a_meeting_point_that_is_not_there(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "COMING", meeting.datetime.timedelta(seconds=0.3))
    with pytest.raises(RunFailure, match=r"the meeting point cannot be reached"):
        Team(Invitation("127.0.0.1", port, 2, 1, hosts=False), 30.0, lambda _: None)
    with pytest.raises(RunFailure, match="the meeting point cannot be reached"):
        Team(Invitation("no-such-host.invalid", port, 2, 1), 30.0, lambda _: None)


def test_who_does_not_come_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt_async.machines.meeting.COMING", meeting.datetime.timedelta(seconds=1))
    with pytest.raises(RunFailure, match="machines 1, 2 of 3 did not come"):
        Team(Invitation("127.0.0.1", port, 3, 0), 30.0, lambda _: None)


def test_they_must_be_started_alike(port: int) -> None:
    def agree(team: Team) -> str:
        team.agree({"data": "abc", "rate": "1"}, {"rate": "--learn-rate"})
        with pytest.raises(UserError) as refused:
            team.agree({"rate": str(team.rank)}, {"rate": "--learn-rate"})
        return str(refused.value)

    said = together(port, agree)
    assert said[0] == said[1]
    assert "has --learn-rate 1 and machine 0" in said[0]


def test_a_state_is_spread(port: int) -> None:
    state = {"a": torch.arange(5.0), "step": torch.tensor(3.0), "half": torch.ones(3, dtype=torch.bfloat16)}

    def spread(team: Team) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return team.spread(1, {"x": [1, "ä"]}, state) if team.rank == 1 else team.spread(1, None, {})

    for values, tensors in together(port, spread):
        assert values == {"x": [1, "ä"]}
        assert tensors.keys() == state.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())


def test_sums_are_the_same_everywhere(port: int) -> None:
    def sums(team: Team) -> list[tuple[int, torch.Tensor]]:
        exchange, found = team.exchange(SYNC), []
        generator = torch.Generator().manual_seed(team.rank)
        for turn in range(3):
            exchange.call()
            exchange.call()  # once more means nothing
            assert isinstance(heard(exchange), Called)
            exchange.begin(Contribution((), 10 * turn + team.rank), torch.randn(1000, generator=generator))
            landed = heard(exchange)
            assert isinstance(landed, Landed)
            found.append((sum(each.wanted for each in landed.joint.contributions), landed.total))
        assert exchange.take() is None
        return found

    machines = together(port, sums, machines=3)
    assert [wanted for wanted, _ in machines[0]] == [3, 33, 63]
    for others in machines[1:]:
        for (_, here), (_, there) in zip(machines[0], others, strict=True):
            assert torch.equal(here, there)


def test_whoever_is_ready_calls_the_others(port: int) -> None:
    def called(team: Team) -> float:
        exchange = team.exchange(LAGGED)
        for turn in range(3):
            if turn % team.size == team.rank:
                exchange.call()
            assert isinstance(heard(exchange), Called)
            exchange.begin(Contribution((), 0), torch.full((3,), float(team.rank + 1)))
            landed = heard(exchange)
            assert isinstance(landed, Landed)
            assert landed.total.tolist() == [3.0, 3.0, 3.0]
        return 1.0

    assert together(port, called) == [1.0, 1.0]


def test_a_machine_that_leaves_says_why(port: int) -> None:
    gone = threading.Event()

    def act(team: Team) -> str:
        exchange = team.exchange(SYNC)
        if team.rank == 1:
            try:
                raise RunFailure("its disk is full.")
            finally:
                team.leave("its disk is full.")
                gone.set()
        gone.wait(PATIENCE)
        exchange.call()
        heard(exchange)
        exchange.begin(Contribution((), 0), torch.zeros(3))
        with pytest.raises(MachineLost) as lost:
            heard(exchange)
        return str(lost.value)

    def one(rank: int) -> str:
        with Team(Invitation("127.0.0.1", port, 2, rank), 1.0, lambda _: None) as team:
            return act(team)

    with ThreadPoolExecutor(2) as pool:
        said, left = [pool.submit(one, rank) for rank in range(2)]
        assert "left the run: its disk is full." in said.result(PATIENCE)
        assert isinstance(left.exception(PATIENCE), RunFailure)


def test_a_machine_that_is_silent_is_named_within_the_timeout(port: int) -> None:
    heard_of, begin = [], time.monotonic()

    def act(team: Team) -> str:
        exchange = team.exchange(SYNC)
        if team.rank == 1:  # it lives, but says nothing any more
            team._watch.close()
            time.sleep(10)
            return ""
        exchange.call()
        heard(exchange)
        exchange.begin(Contribution((), 0), torch.zeros(3))
        with pytest.raises(MachineLost) as lost:
            heard(exchange)
        heard_of.append(time.monotonic() - begin)
        return str(lost.value)

    def one(rank: int) -> str:
        with Team(Invitation("127.0.0.1", port, 2, rank), 1.5, lambda _: None) as team:
            return act(team)

    with ThreadPoolExecutor(2) as pool:
        said, _ = [pool.submit(one, rank) for rank in range(2)]
        assert said.result(PATIENCE).startswith("nothing is heard any more of machine 1 (")


def test_those_who_are_left_meet_again_without_the_others(port: int) -> None:
    """One of three is silent; the two others come to the same list, and the silent one, when it wakes up, is told."""
    met_again = threading.Event()

    def one(rank: int) -> list[bytes] | str:
        with Team(Invitation("127.0.0.1", port, 3, rank), 1.0, lambda _: None) as team:
            if rank == 1:
                team._watch.close()
                assert met_again.wait(PATIENCE)
                watch = Watch(team._meeting.connect, rank, team.names, 30.0, "the meeting point")
                with pytest.raises(MachineLost) as lost:
                    those_left(PrefixStore("again", team._meeting.connect()), rank, team.names, watch)
                watch.close()
                return str(lost.value)
            invitation = team.those_left()
        assert invitation is not None
        with Team(invitation, 30.0, lambda _: None) as team:
            said = team.group.gather(f"{team.rank} was {rank}".encode())
            met_again.set()
            return said

    with ThreadPoolExecutor(3) as pool:
        first, silent, last = [future.result(PATIENCE) for future in [pool.submit(one, rank) for rank in range(3)]]
    assert first == last == [b"0 was 0", b"1 was 2"]
    assert isinstance(silent, str)
    assert "did not come in time, and the others went on without it" in silent


def test_the_last_one_is_alone(port: int) -> None:
    def one(rank: int) -> Invitation | None:
        with Team(Invitation("127.0.0.1", port, 2, rank), 1.0, lambda _: None) as team:
            return None if rank == 1 else team.those_left()

    with ThreadPoolExecutor(2) as pool:
        assert [future.result(PATIENCE) for future in [pool.submit(one, rank) for rank in range(2)]] == [None, None]
