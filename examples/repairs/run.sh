#!/usr/bin/env bash
# The study of examples/repairs/study.yaml in one of its sizes: quick, core or full. See README.md beside this file.
# Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make reproduce-quick', which installs it first"

run_study repairs "${1:-}" "${2:-}"
