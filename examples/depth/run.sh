#!/usr/bin/env bash
# The study of examples/depth/study.yaml in one of its sizes: quick, rates or core. See README.md beside this file.
# Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make reproduce-quick', which installs it first"

size="${1:-core}"
data="${2:-runs/multi30k/data}"
study=examples/depth

[[ -d "$data" ]] || {
    echo "run.sh: there is no $data; 'examples/multi30k/run.sh' or 'make reproduce-quick' makes it, or name another folder." >&2
    exit 2
}

run "nmt-async study $study/study.yaml $data --size $size --claims $study/claims.yaml --out runs/depth/$size"
