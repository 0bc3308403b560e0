# Sourced by a recipe's run.sh: goes to the project's root, finds nmt-async there, and defines `run`.
# The argument says what to do where nmt-async is not installed.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PWD/.venv/bin:$PATH"
command -v nmt-async > /dev/null || {
    echo "nmt-async is not installed: $1." >&2
    exit 2
}

dry=

# Shows a command as one types it, then runs it, unless `dry` is set.
run() {
    printf '\n$ %s\n' "$1"
    [[ -n $dry ]] || eval "$1"
}

# The study of examples/$1 in the size $2, on the prepared data $3, which are those of Multi30k if nobody says otherwise.
run_study() {
    local study="examples/$1" size="${2:-core}" data="${3:-runs/multi30k/data}"
    [[ -d "$data" ]] || {
        echo "run.sh: there is no $data; 'examples/multi30k/run.sh' or 'make reproduce-quick' makes it, or name another folder." >&2
        exit 2
    }
    run "nmt-async study $study/study.yaml $data --size $size --claims $study/claims.yaml --out runs/$1/$size"
}
