#!/usr/bin/env bash
# torchrun.sh FIRST-HOST MIN:MAX: on each machine, under torchrun, which starts those anew that are left.
#
#     examples/cluster/torchrun.sh gpu1 1:2
#
# If a machine is lost, the others save and end; torchrun forms a group of those left, and the run goes on.
set -euo pipefail
(($# == 2)) || { echo "usage: examples/cluster/torchrun.sh FIRST-HOST MIN:MAX" >&2; exit 2; }
.venv/bin/torchrun --rdzv-backend c10d --rdzv-endpoint "$1:29400" --rdzv-id nmt-async --nnodes "$2" --nproc-per-node 1 \
    --max-restarts 100 --no-python .venv/bin/nmt-async train "${DATA:-data}" --config examples/cluster/train.yaml
