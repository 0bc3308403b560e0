#!/usr/bin/env bash
# Two real workers, even and with one slowed; see README.md beside this file. Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make reproduce-quick', which installs it first"

data="${1:-runs/multi30k/data}"
here=examples/slowed-worker
made="${2:-runs/slowed-worker}"
study="${STUDY:-$here/study.yaml}"

[[ -d "$data" ]] || {
    echo "run.sh: there is no $data; 'examples/multi30k/run.sh' or 'make reproduce-quick' makes it, or name another folder." >&2
    exit 2
}

for size in even slowed; do
    busy=
    [[ $size == slowed ]] && busy="--busy 1 "
    run "python $here/pinned.py --watch $made/$size $busy-- \\
    nmt-async study $study $data --size $size --jobs 1 --claims $here/claims.yaml --out $made/$size"
done
