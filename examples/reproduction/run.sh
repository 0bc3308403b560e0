#!/usr/bin/env bash
# The study of examples/reproduction/study.yaml in one of its sizes: quick, core or full. See README.md beside this file.
# Called by `make reproduce-quick`, `make reproduce` and `make reproduce-full`. Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make reproduce-quick', which installs it first"

size="${1:-core}"
corpus="${DATA:-multi30k}"
study=examples/reproduction

case "$corpus" in
    multi30k)
        made=runs/multi30k
        vocabulary=4000
        run "python examples/multi30k/data.py --out $made/text" || {
            echo "Multi30k can be had neither from NMT_ASYNC_DATA nor from the network. The demo's generated corpus needs" >&2
            echo "neither, but tells less: give DATA=generated, as in 'make reproduce-quick DATA=generated'." >&2
            exit 1
        }
        ;;
    generated)
        made=runs/generated
        vocabulary=1000
        [[ -f $made/text/train.de ]] || run "python -m nmt_async.demo_corpus.generate --out $made/text --seed 1"
        ;;
    *)
        echo "run.sh: DATA='$corpus' is not known; leave it out for Multi30k, or give DATA=generated." >&2
        exit 2
        ;;
esac

if [[ ! -d "$made/data" ]]; then
    run "nmt-async prepare --train-source $made/text/train.en --train-target $made/text/train.de \\
    --valid-source $made/text/valid.en --valid-target $made/text/valid.de --vocab-size $vocabulary --out $made/data"
fi

run "nmt-async study $study/study.yaml $made/data --size $size --claims $study/claims.yaml \\
    --out runs/reproduction/$corpus-$size"
