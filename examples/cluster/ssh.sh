#!/usr/bin/env bash
# ssh.sh HOST…: the same run on several machines, which ssh reaches and which have this project in the same folder.
#
#     examples/cluster/ssh.sh gpu1 gpu2
#
# DATA (data by default) lies on each of them; the first host is where they meet, at PORT (29400).
set -euo pipefail
(($# > 1)) || { echo "usage: examples/cluster/ssh.sh HOST HOST…" >&2; exit 2; }
data=${DATA:-data} port=${PORT:-29400} folder=$PWD hosts=("$@") pids=()
for rank in "${!hosts[@]}"; do
    command="cd $(printf %q "$folder") && .venv/bin/nmt-async train $(printf %q "$data")"
    command+=" --config examples/cluster/train.yaml --nodes $# --node-rank $rank --rendezvous ${hosts[0]}:$port"
    # With a terminal, what ends ssh ends the trainer, too.
    ssh -tt "${hosts[rank]}" "$command" < /dev/null > "machine-$rank.log" 2>&1 &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2> /dev/null' INT TERM
status=0
for rank in "${!hosts[@]}"; do
    wait "${pids[rank]}" || { status=$?; echo "${hosts[rank]} ended with $status; see machine-$rank.log" >&2; }
done
exit "$status"
