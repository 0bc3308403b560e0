#!/usr/bin/env bash
# Multi30k English-German with one way of updating: muon (the default), sync, hybrid or async. See README.md beside this
# file.
# Run again, it resumes: the text and the prepared data are kept, and training continues where it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make venv' first"

mode="${1:-muon}"
case "$mode" in
    # A round of one batch from each of two workers, and four pushes of half the size from anyone: the same effective
    # batch. Of N pushes one (W - 1) is an update old, so that more and smaller ones are fresher.
    sync) accumulate=1 words=1024 more="--optimizer adam" ;;
    hybrid) accumulate=4 words=512 more="--optimizer adam --weight-prediction none" ;;
    async) accumulate=1 words=1024 more="--optimizer adam --weight-prediction none" ;;
    # As many pushes as workers, with the optimizer that bears staleness, on predicted parameters (examples/repairs): what
    # train does where nothing else is said.
    muon) accumulate=2 words=1024 more="--optimizer muon --weight-prediction last-step" ;;
    *)
        echo "run.sh: '$mode' is not a mode; choose muon, sync, hybrid or async." >&2
        exit 2
        ;;
esac
sync_mode="${mode/muon/hybrid}"
stop_after="${STOP_AFTER:-5Mt}"

made=runs/multi30k
run "python examples/multi30k/data.py --out $made/text"

if [[ ! -d "$made/data" ]]; then
    run "nmt-async prepare --train-source $made/text/train.en --train-target $made/text/train.de \\
    --valid-source $made/text/valid.en --valid-target $made/text/valid.de --vocab-size 4000 --out $made/data"
fi

run "nmt-async train $made/data --out $made/$mode --sync-mode $sync_mode --accumulate $accumulate --workers 2 \\
    --preset small --mini-batch-words $words $more \\
    --learn-rate 0.002 --lr-warmup 300 --lr-decay linear \\
    --stop-after $stop_after --valid-freq 400 --disp-freq 50 --seed 1"

hypothesis="$made/$mode.test2016.de"
run "nmt-async translate $made/$mode < $made/text/test2016.en > $hypothesis" || {
    code=$?
    rm -f "$hypothesis"
    exit "$code"
}

run "nmt-async evaluate --reference $made/text/test2016.de --hypothesis $hypothesis | tee $made/$mode.evaluation.txt"
