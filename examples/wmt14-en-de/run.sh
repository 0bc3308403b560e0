#!/usr/bin/env bash
# The full-size experiment: WMT14 English-German, a base model on four GPUs, one way of updating. See README.md here.
#
#     examples/wmt14-en-de/run.sh [hybrid|sync|async] [--dry-run]
#
# Run again, it resumes. --dry-run prints the commands, runs none of them, and says what training would be if the data
# is prepared. DATA names a prepared folder to use instead of WMT14's, DEVICES other devices, STOP_AFTER another end.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make venv' first"

mode=hybrid
dry=
for word in "$@"; do
    case "$word" in
        hybrid | sync | async) mode="$word" ;;
        --dry-run) dry=1 ;;
        *)
            echo "run.sh: '$word' is not known; give hybrid, sync or async, and --dry-run to see what it would do." >&2
            exit 2
            ;;
    esac
done
# Of each update: four pushes from anyone, one batch of each of four workers, or one push.
accumulate=1
[[ $mode == hybrid ]] && accumulate=4

made=runs/wmt14-en-de
data="${DATA:-$made/data}"
devices="${DEVICES:-0,1,2,3}"
first="${devices%%,*}"
device="$first"
[[ $first =~ ^[0-9]+$ ]] && device="cuda:$first"
stop_after="${STOP_AFTER:-2.5Gt}"

# What Vaswani et al. 2017 trained on. The names are those of mtdata 0.5.1's own recipe vaswani_etal_2017_ende
# (mtdata/resource/recipes.yml); WMT14's News Commentary, version 9, is not in its index, so this is 2018's version 13.
get="mtdata get --langs eng-deu --merge --out $made/text \\
    --train Statmt-commoncrawl_wmt13-1-deu-eng Statmt-europarl_wmt13-7-deu-eng \\
            Statmt-news_commentary_wmt18-13-deu-eng \\
    --dev Statmt-newstest-2013-eng-deu --test Statmt-newstest_deen-2014-deu-eng"

if [[ ! -d $data ]]; then
    if [[ ! -f $made/text/train.complete ]]; then
        # A folder of its own: mtdata wants other versions of our packages.
        run "python3 -m venv $made/mtdata && $made/mtdata/bin/pip install mtdata==0.5.1"
        run "$made/mtdata/bin/$get"
        [[ -n $dry ]] || touch "$made/text/train.complete"
    fi
    run "nmt-async prepare --train-source $made/text/train.eng --train-target $made/text/train.deu \\
    --valid-source $made/text/dev.eng --valid-target $made/text/dev.deu --vocab-size 32000 --out $data"
fi

# Optimizer, learning rate and schedule are Aji & Heafield's, and workers compute on the parameters that there are. Four
# batches of 6,250 target tokens make the 25,000 of Vaswani et al. Validation computes on the CPU, so it translates 200
# sentences only.
train="nmt-async train $data --out $made/$mode --sync-mode $mode --accumulate $accumulate --workers 4 \\
    --devices $devices --preset base --norm post --mini-batch-words 6250 \\
    --learn-rate 0.0003 --lr-warmup 16k --lr-decay inv-sqrt \\
    --optimizer adam --adam-beta1 0.9 --adam-beta2 0.98 --weight-prediction none \\
    --label-smoothing 0.1 --exponential-smoothing 0.0001 --stop-after $stop_after \\
    --valid-freq 5k --valid-sentences 200 --save-freq 5k --metric bleu --seed 1"
run "$train"
if [[ -n $dry && -d $data ]]; then
    run_dry="${train/nmt-async train/nmt-async train --dry-run}"
    eval "$run_dry"
fi

hypothesis="$made/$mode.newstest2014.de"
run "nmt-async translate $made/$mode --beam-size 4 --normalize 0.6 --device $device \\
    < $made/text/test1.eng > $hypothesis" || {
    code=$?
    rm -f "$hypothesis"
    exit "$code"
}

run "nmt-async evaluate --reference $made/text/test1.deu --hypothesis $hypothesis | tee $made/$mode.evaluation.txt"
