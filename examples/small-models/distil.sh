#!/usr/bin/env bash
# A tiny student of the model of run.sh, beside a tiny model that learns from people's translations. See README.md beside
# this file.
#
# Run again, it goes on where it stopped. --dry-run prints the commands, and runs none of them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make venv' first"
[[ "${1:-}" != --dry-run ]] || dry=1

made=runs/small-models
text="$made/text" teacher="$made/float32"
[[ -d "$teacher" || -n $dry ]] || {
    echo "distil.sh: there is no $teacher; examples/small-models/run.sh makes it." >&2
    exit 2
}
valid="--valid-source $text/valid.en --valid-target $text/valid.de"
distil="nmt-async distil $teacher --source $text/train.en $valid --workers 2 --threads 1"

[[ -d "$made/taught" ]] || run "$distil --out $made/taught"
[[ -d "$made/taught-near" ]] || run "$distil --reference $text/train.de --out $made/taught-near"

# The same text, with people's translations, with the teacher's, and with the nearest to people's of its beam.
for data in data taught taught-near; do
    student="$made/tiny-on-$data"
    run "nmt-async train $made/$data --out $student --preset tiny --workers 2 --cpu-threads 1 --mini-batch-words 1024 \\
    --learn-rate 0.002 --lr-warmup 300 --lr-decay linear --no-valid-translate --seed 1 --stop-after ${STOP_AFTER:-3Mt} \\
    --valid-freq 200 --disp-freq 50"
    # The last checkpoint: the best one is that of the least cross-entropy of people's translations, which the students
    # of the teacher do not learn to predict.
    last="$student/\$(cat $student/last)"
    for beam in 1 4; do
        run "nmt-async evaluate $last --source $text/test2016.en --reference $text/test2016.de --beam-size $beam \\
    | tee $student.beam-$beam.txt"
    done
done
