#!/usr/bin/env bash
# Makes .venv from the lock that fits this machine. `make setup` runs it, and every other target first does.
#
#   ./setup.sh [cpu|gpu]     default: what .venv already is; in a new one, gpu where nvidia-smi sees one
#
# The stamp in .venv is written last, so an interrupted setup is completed by the next one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

kind=${1:-}
[ -n "$kind" ] || read -r kind _ 2>/dev/null <.venv/made-for || true
[ -n "$kind" ] || { nvidia-smi -L 2>/dev/null | grep -q '^GPU' && kind=gpu; } || kind=cpu
lock=requirements/$kind.txt
[ -f "$lock" ] || fail "no lock $lock: use 'cpu' or 'gpu'"

stamp=.venv/stamp-$kind-$({ pwd; cat "$lock" pyproject.toml; } | sha256sum | cut -c1-12)
[ ! -e "$stamp" ] || exit 0
exec 9<setup.sh
flock 9 # one setup at a time
[ ! -e "$stamp" ] || exit 0

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the locks are for Linux on x86-64, this is $(uname -sm)"
for python in python3.11 python3 ""; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed and neither python3.11 nor python3 is one"

# A .venv is used again when it is this folder's, of this kind, and its pip is whole.
site='.venv/lib/python3.*/site-packages'
made_for=$(cat .venv/made-for 2>/dev/null || echo "$kind $PWD")
if [ "$made_for" != "$kind $PWD" ] || ! compgen -G "$site/pip-*.dist-info/INSTALLER" >/dev/null \
    || ! .venv/bin/python -c '' 2>/dev/null; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "'$python -m venv' failed; on Debian and Ubuntu: sudo apt-get install python3-venv"
fi
echo "$kind $PWD" >.venv/made-for
rm -f .venv/stamp-*

# pip writes INSTALLER when a package is unpacked: what lacks it was cut short and is installed again.
for package in $site/*.dist-info; do
    [ -e "$package/INSTALLER" ] || rm -rf "$package"
done

pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }

say "installing $(wc -l <"$lock") packages from $lock (a few minutes the first time)"
for pin in $(grep -F '+cpu' "$lock" || true); do
    if ! error=$(pip install --no-deps "$pin" 2>&1); then
        say "$pin is not in the configured package sources, trying $torch_cpu_index"
        pip install --no-deps --extra-index-url "$torch_cpu_index" "$pin" || fail "$pin cannot be installed: $error"
    fi
done
pip install --no-deps -r "$lock"
pip install --no-deps --no-build-isolation -e .

# Programs that a model wrote are run in bubblewrap when they are verified.
apt_install() { DEBIAN_FRONTEND=noninteractive timeout 120 apt-get install -qq -y "$1"; }
if ! command -v bwrap >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
        || ! { apt_install bubblewrap || { timeout 120 apt-get update -qq && apt_install bubblewrap; }; } </dev/null >/dev/null 2>&1; then
        say "to verify code, install bubblewrap too: sudo apt-get install bubblewrap"
    fi
fi

touch "$stamp"
say ".venv is ready ($kind)"
