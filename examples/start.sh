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
