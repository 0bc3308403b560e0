#!/usr/bin/env bash
# From nothing to a BLEU score: a generated corpus, then the four commands of nmt-async as one types them.
# Called by `make demo`. Run again, it keeps what is there: training resumes, and a finished model is not trained twice.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../start.sh" "run 'make demo', which installs it first"

corpus_is_current() {
    [[ -f demo/train.de ]] || return 1
    local maker
    for maker in examples/demo/run.sh nmt_async/demo_corpus/*.py; do
        [[ "$maker" -nt demo/train.de ]] && return 1
    done
    return 0
}

if ! corpus_is_current; then
    rm -rf demo/data demo/run
    run "python -m nmt_async.demo_corpus.generate --out demo --train 20000 --valid 500 --test 500 --seed 1"
fi

if [[ ! -d demo/data ]]; then
    run "nmt-async prepare --train-source demo/train.en --train-target demo/train.de \\
    --valid-source demo/valid.en --valid-target demo/valid.de --vocab-size 1000 --out demo/data"
fi

run "nmt-async train demo/data --out demo/run --sync-mode hybrid --accumulate 2 --workers 2 --preset tiny \\
    --dropout 0 --mini-batch-words 500 --learn-rate 0.002 --lr-warmup 400 --lr-decay linear --stop-after 6e \\
    --disp-freq 100 --valid-freq 2e --valid-sentences 100 --seed 1"

run "nmt-async translate demo/run < demo/test.en > demo/test.hypothesis.de" || {
    code=$?
    rm -f demo/test.hypothesis.de
    exit "$code"
}

run "nmt-async evaluate --reference demo/test.de --hypothesis demo/test.hypothesis.de | tee demo/evaluation.txt"

printf '\nFive sentences that the model has not seen\n'
for line in 1 101 201 301 401; do
    printf '\n  source       %s\n  reference    %s\n  translation  %s\n' \
        "$(sed -n "${line}p" demo/test.en)" "$(sed -n "${line}p" demo/test.de)" \
        "$(sed -n "${line}p" demo/test.hypothesis.de)"
done

cat <<END

$(grep -m 1 BLEU demo/evaluation.txt)

What was made
  demo/train.en ... demo/test.de   the generated corpus
  demo/data                        vocabulary and token store
  demo/run                         the run: checkpoints, metrics.jsonl, train.log
  demo/test.hypothesis.de          the translations
  demo/evaluation.txt              the scores
END
