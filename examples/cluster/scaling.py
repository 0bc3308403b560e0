"""Simulates 1 to 512 machines of 8 GPUs, and writes the tables of docs/scaling.md from what came out.

    python examples/cluster/scaling.py simulate     # an hour on one core; what is there is kept
    python examples/cluster/scaling.py document

Simulated is time alone: no gradient is computed. profiles/ holds what is assumed of a machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nmt_async.cluster.profile import LinkProfile, profile_for
from nmt_async.planning.options import link_speed

HERE = Path(__file__).parent
RESULTS = HERE / "scaling"
DOCUMENT = HERE.parents[1] / "docs" / "scaling.md"
MODELS = {"base": "60M", "big": "210M"}
SPEEDS = ("1Gbit", "10Gbit", "100Gbit")
MACHINES = (1, 2, 4, 8, 32, 128, 512)
FRAGMENTS = "local, fragments"
WAYS = ("sync", "lagged", "local", FRAGMENTS)
OTHERS = {FRAGMENTS: ["--between", "local", "--outer-fragments", "4", "--outer-dtype", "bfloat16"]}
"""Ways that are simulated by themselves."""

OWN_UPDATES = {"local": 16, FRAGMENTS: 4}
"""That each machine makes between two exchanges."""

LARGEST, LATENCY = 500_000, 0.05
"""Target tokens of an update that still learns, as far as translation is known; milliseconds of a message."""

BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"


def path_of(model: str, speed: str, way: str) -> Path:
    return RESULTS / f"{model}-{speed}{'-fragments' if way in OTHERS else ''}.json"


def simulate() -> None:
    """What is not there yet."""
    RESULTS.mkdir(exist_ok=True)
    for model, size in MODELS.items():
        for speed in SPEEDS:
            for way in ("sync", FRAGMENTS):
                path = path_of(model, speed, way)
                if path.exists():
                    continue
                words = [
                    "simulate", "--profile", HERE / "profiles" / f"{model}.yaml", "--repeat", "--workers", 8, "--nodes",
                    ",".join(map(str, MACHINES)), "--modes", "hybrid:W", "--model-size", size, "--mini-batch-words",
                    16384, "--link-speed", speed, "--link-latency", LATENCY, "--json", "--quiet", *OTHERS.get(way, []),
                ]  # fmt: skip
                program = Path(sys.executable).with_name("nmt-async")
                done = subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True)
                path.write_text(done.stdout)


def predictions(model: str, speed: str, way: str) -> list[dict[str, Any]]:
    """Of one way, by ascending machines."""
    name = "local" if way in OTHERS else way
    return [made for made in json.loads(path_of(model, speed, way).read_text()) if made["between"] == name]


def efficiency(model: str, speed: str) -> Iterator[str]:
    """Rows: of each number of machines, the throughput of each way as a share of that of so many single machines."""
    of = {way: predictions(model, speed, way) for way in WAYS if path_of(model, speed, way).exists()}
    yield "| machines | GPUs | " + " | ".join(of) + " |"
    yield "|---|---|" + "---|" * len(of)
    for place, machines in enumerate(MACHINES):
        cells = []
        for way in of:
            one, made = of[way][0], of[way][place]
            cells.append(f"{made['tokens_per_second'] / one['tokens_per_second'] / machines:.0%}")
        yield f"| {machines} | {8 * machines:,} | " + " | ".join(cells) + " |"


def costs(model: str) -> Iterator[str]:
    """Rows: what else differs, on the link in the middle."""
    yield "| machines | way | tokens/s | staleness, mean and most | tokens in an update | exchange, MB |"
    yield "|---|---|---|---|---|---|"
    of = {way: predictions(model, SPEEDS[1], way) for way in WAYS if path_of(model, SPEEDS[1], way).exists()}
    for place, machines in enumerate(MACHINES):
        for way in of:
            made = of[way][place]
            if machines == 1 and way != "sync":
                continue
            # Where machines make updates of their own, what is reported as one is an exchange of all.
            own = machines * OWN_UPDATES[way] if way in OWN_UPDATES and machines > 1 else 1
            batch = made["effective_batch"] / own
            yield (
                f"| {machines} | {way if machines > 1 else 'one machine'} | {made['tokens_per_second'] / 1e6:,.2f} M | "
                f"{made['staleness_mean']:.2f}, {made['staleness_max']} | {batch / 1e6:,.2f} M | "
                f"{made['link_bytes'] / 1e6:,.0f} |"
            )


def limits() -> Iterator[str]:
    """Rows: up to how many machines an exchange is no longer than their round, where an update has `LARGEST` tokens."""
    yield "| model | link | machines | GPUs | a round, seconds | tokens/s of all, without waiting |"
    yield "|---|---|---|---|---|---|"
    for model, size in MODELS.items():
        profile = profile_for(str(HERE / "profiles" / f"{model}.yaml"), None)
        rate = sum(worker.tokens_per_second for worker in profile.workers)
        for speed in SPEEDS:
            link = LinkProfile(LATENCY / 1000, link_speed(speed))
            sent = 4 * float(size.removesuffix("M")) * 1e6
            fit = [count for count in range(1, 2000) if link.exchange(sent, count) <= LARGEST / (count * rate)]
            most = max(fit)
            cells = [
                model,
                speed.replace("Gbit", " Gbit/s"),
                f"{most}",
                f"{8 * most}",
                f"{LARGEST / (most * rate):.2f}",
            ]
            yield f"| {' | '.join(cells)} | {most * rate / 1e6:,.1f} M |"


def tables() -> dict[str, str]:
    """Of the document, by the names of their places."""
    made = {f"{model} {speed}": efficiency(model, speed) for model in MODELS for speed in SPEEDS}
    made |= {model: costs(model) for model in MODELS} | {"limits": limits()}
    return {name: "\n".join(rows) for name, rows in made.items()}


def with_tables(text: str) -> str:
    """The document's text with the tables as the results make them."""
    for name, table in tables().items():
        before, begin, rest = text.partition(BEGIN.format(name))
        if begin:
            text = f"{before}{begin}\n\n{table}\n\n{END}{rest.partition(END)[2]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("simulate", "document"))
    if parser.parse_args().what == "simulate":
        simulate()
    else:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
