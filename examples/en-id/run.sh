#!/usr/bin/env bash
# Three domains, English to Indonesian and back. See README.md beside this file.
#
#     examples/en-id/run.sh [quick|core] [en-id|id-en] [--dry-run]
#
# Run again, it goes on where it stopped. --dry-run prints the commands that are left, and runs none of them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make venv' first"

size=core
directions="en-id id-en"
for word in "$@"; do
    case "$word" in
        quick | core) size="$word" ;;
        en-id | id-en) directions="$word" ;;
        --dry-run) dry=1 ;;
        *)
            echo "run.sh: '$word' is not known; give quick or core, en-id or id-en, and --dry-run to see the commands." >&2
            exit 2
            ;;
    esac
done
case "$size" in
    # Target tokens of training at most; training ends earlier if six validations in a row are no better.
    core) all=8Mt one=2500kt tune=400kt every=100kt often=25kt beam=4 test= shape="--preset tiny" ;;
    # Whether everything works; what comes out means nothing.
    quick)
        all=16kt one=16kt tune=8kt every=8kt often=8kt beam=1 test="--test-lines 20"
        shape="--dim-emb 32 --heads 2 --dim-ffn 64 --enc-depth 1 --dec-depth 1"
        ;;
esac
domains="general news religious"
made="runs/en-id/$size"
text="$made/text"
run "python examples/en-id/data.py --out $text${test:+ $test}"

# prepare NAME OPTIONS: a prepared folder, unless it is there.
prepare() {
    [[ -d "$here/data/$1" ]] || run "nmt-async prepare $2 --out $here/data/$1"
}

# Two kinds of files for each domain: what one trains on, and what one validates with.
text_of() {
    for domain in "$@"; do
        printf ' --train-source %s --train-target %s' "$text/$domain.train."{$source,$target}
        printf ' --valid-source %s --valid-target %s' "$text/$domain.valid."{$source,$target}
    done
}

# train NAME DATA AMOUNT EVERY OPTIONS
train() {
    run "nmt-async train $here/data/$2 --out $here/models/$1 --dropout 0.1 --workers 2 --cpu-threads 1 \\
    --mini-batch-words 512 --stop-after $3 --valid-freq $4 --disp-freq $4 --save-freq $4 --keep-last 1 \\
    --early-stopping 6 --no-valid-translate --seed 1 $5"
}

# translate MODEL DOMAIN NAME [OPTIONS]: a file that appears when it is whole.
translate() {
    local out="$here/translations/$3.$2.$target"
    [[ -f "$out" ]] || run "nmt-async translate $here/models/$1 -i $text/$2.test.$source -o $out --beam-size $beam --workers 2 --threads 1 ${4-}"
}

for direction in $directions; do
    source="${direction%-*}"
    target="${direction#*-}"
    here="$made/$direction"
    [[ -n $dry ]] || mkdir -p "$here/data" "$here/models" "$here/translations"

    # One vocabulary for all, so that models differ in nothing but their data. It has the tags, which only one of them uses.
    prepare tags "--corpora $text/$direction.tags.yaml --vocab-size 2000"
    vocab="--vocab $here/data/tags/vocabulary.model --vocab-size 2000"
    prepare union "--corpora $text/$direction.union.yaml $vocab"
    fresh="$shape --learn-rate 0.005 --lr-warmup 600"
    tuned="--learn-rate 0.00125 --lr-warmup 100 --init-from $here/models/union"

    train union union "$all" "$every" "$fresh"
    train tags tags "$all" "$every" "$fresh"
    train temperature-5 union "$all" "$every" "$fresh --corpus-temperature 5"
    rows="union tags temperature-5"
    for domain in $domains; do
        prepare "only-$domain" "$(text_of "$domain") $vocab"
        train "only-$domain" "only-$domain" "$one" "$often" "$fresh"
        train "tuned-to-$domain" "only-$domain" "$tune" "$often" "$tuned"
        others="${domains//$domain/}"
        # shellcheck disable=SC2086
        prepare "without-$domain" "$(text_of $others) $vocab"
        train "without-$domain" "without-$domain" "$all" "$every" "$fresh"
    done
    for kind in only tuned-to without; do
        for domain in $domains; do
            rows+=" $kind-$domain"
        done
    done

    for domain in $domains; do
        for model in $rows; do
            tag=
            [[ "$model" != tags ]] || tag="--tag __${domain}__"
            translate "$model" "$domain" "$model" "$tag"
        done
        # What a tag does: each domain with each tag, and with none.
        translate tags "$domain" tagged-nothing
        for other in $domains; do
            translate tags "$domain" "tagged-$other" "--tag __${other}__"
        done
    done

    matrix="python examples/en-id/matrix.py $here/translations --text $text --target $target --domains $domains"
    run "$matrix --models $rows --out $here/models.md"
    run "$matrix --models tagged-nothing tagged-general tagged-news tagged-religious --out $here/tags.md"
done
