#!/usr/bin/env bash
# Makes .venv from the lock that fits this machine. `make setup` runs it, and every other target first does.
#
#   ./setup.sh [cpu|gpu]     default: what .venv already is; for a new one, gpu where nvidia-smi sees a GPU
#
# The stamp in .venv is written last, so an interrupted setup is completed by the next one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*" >&2; }
fail() { say "$*" && exit 1; }
pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }

main() {
    local kind=${1:-}
    [ -n "$kind" ] || read -r kind _ 2>/dev/null <.venv/made-for || true
    [ -n "$kind" ] || { nvidia-smi -L 2>/dev/null | grep -q '^GPU' && kind=gpu; } || kind=cpu
    local lock=requirements/$kind.txt
    [ -f "$lock" ] || fail "no lock $lock: use 'cpu' or 'gpu'"

    local stamp
    stamp=.venv/stamp-$kind-$({ pwd; cat "$lock" pyproject.toml; } | sha256sum | cut -c1-12)
    [ ! -e "$stamp" ] || exit 0
    exec 9<setup.sh
    flock 9 # one setup at a time
    [ ! -e "$stamp" ] || exit 0

    make_venv "$kind"
    install "$lock"
    install_bubblewrap
    touch "$stamp"
    say ".venv is ready ($kind)"
}

make_venv() {
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the locks are for Linux on x86-64, this is $(uname -sm)"
    local python
    for python in python3.11 python3 ""; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    [ -n "$python" ] || fail "Python 3.11 or newer is needed and neither python3.11 nor python3 is one"

    # A .venv is used again when it is this folder's, of this kind, and its python and pip are whole.
    local made_for
    made_for=$(cat .venv/made-for 2>/dev/null || echo "$1 $PWD")
    if [ "$made_for" != "$1 $PWD" ] || ! .venv/bin/python -c '' 2>/dev/null \
        || ! compgen -G '.venv/lib/python3.*/site-packages/pip-*.dist-info/INSTALLER' >/dev/null; then
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv || fail "'$python -m venv' failed: on Debian, sudo apt-get install python3-venv"
    fi
    echo "$1 $PWD" >.venv/made-for
    rm -f .venv/stamp-*
}

install() {
    # pip writes INSTALLER when a package is unpacked: what lacks it was cut short and is installed again.
    local package pin error
    for package in .venv/lib/python3.*/site-packages/*.dist-info; do
        [ -e "$package/INSTALLER" ] || rm -rf "$package"
    done

    say "installing $(wc -l <"$1") packages from $1 (a few minutes the first time)"
    for pin in $(grep -F '+cpu' "$1" || true); do
        if ! error=$(pip install --no-deps "$pin" 2>&1); then
            say "$pin is not in the configured package sources, trying $torch_cpu_index"
            pip install --no-deps --extra-index-url "$torch_cpu_index" "$pin" || fail "$pin cannot be installed: ${error##*$'\n'}"
        fi
    done
    pip install --no-deps -r "$1"
    pip install --no-deps --no-build-isolation -e .
}

# Programs that a model wrote are run in bubblewrap when they are verified.
install_bubblewrap() {
    ! command -v bwrap >/dev/null || return 0
    export DEBIAN_FRONTEND=noninteractive
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        timeout 120 apt-get install -y bubblewrap || { timeout 120 apt-get update && timeout 120 apt-get install -y bubblewrap; } || true
    fi </dev/null >/dev/null 2>&1
    command -v bwrap >/dev/null || say "to verify code, install bubblewrap too: sudo apt-get install bubblewrap"
}

main "$@"
exit
