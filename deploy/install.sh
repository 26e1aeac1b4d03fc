#!/bin/sh
# Install Carina into .venv unless it is there already: `sh deploy/install.sh all`, or `all,dev` for the tests' tools too.
# The Makefile calls it before every target. It takes wheels only, so that nothing needs a compiler, keeps pip's temporary
# files under .venv, and tells every obstacle in one sentence. Environment:
#   PYTHON       the Python to use; by default the first fitting one on PATH
#   TORCH_INDEX  a package index to take PyTorch from as well, as the one without CUDA
#   INSTALL_GB   the free disk space to ask for
set -eu
unset CDPATH # or `cd` may go to a folder below it
cd "$(dirname "$0")/.."
extras=$1
log=.venv/install.log

fail() { echo "Cannot install Carina: $1" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 15) and "t" not in sys.abiflags))' 2>/dev/null; }

find_python() {
    found=
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python3.14; fi
    for python in "$@"; do
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        found="$found$python is $version"
        if fits "$python"; then
            if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
            found="$found without its venv module (Debian, Ubuntu: apt install python3-venv)"
        fi
        found="$found; "
    done
    fail "it needs Python 3.11 to 3.14 with its venv module: ${found:-there is no ${PYTHON:-Python on PATH}; }PYTHON=/path/to/python3 chooses another."
}

# What .venv was installed from: where, which extras, PyTorch's index, and the checksums of what it depends on.
state() { printf '%s\n' "$(pwd -P)" "$extras" "${TORCH_INDEX:-}"; cksum pyproject.toml deploy/constraints.txt; }

recorded() { sed -n "$1p" .venv/ready 2>/dev/null || :; }

# Why .venv cannot be used any more, if so.
unusable() {
    if [ -e .venv/installing ] || [ ! -e .venv/ready ]; then
        echo "was not finished"
    elif ! .venv/bin/python -P -c 'import importlib.metadata as m; m.version("carina")' 2>/dev/null; then
        echo "has lost its Python"
    elif made_in=$(recorded 1) && [ -n "$made_in" ] && ! [ "$made_in/.venv" -ef .venv ]; then
        echo "was made in $made_in"
    elif [ -n "${TORCH_INDEX:-}" ] && [ "$TORCH_INDEX" != "$(recorded 3)" ]; then
        echo "has another PyTorch"
    fi
}

check_space() {
    # PyTorch and CUDA: 7 GB, and 3.5 GB of packed files until the end; without CUDA 2 GB and 1 GB.
    need=${INSTALL_GB:-$([ -n "${TORCH_INDEX:-}" ] && echo 4 || echo 11)}
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1000000) }')
    [ "$free" -ge "$need" ] || fail "it needs $need GB of free disk space in $PWD, and there are $free GB."
    # pip's cache would take as much again as the packed files.
    [ "$free" -ge $((need + need / 2)) ] || export PIP_NO_CACHE_DIR=1
}

explain() {
    if grep -Eq 'No space left on device|Disk quota exceeded' "$log"; then
        fail "the disk is full; make room and run it again."
    elif grep -Eq 'connection broken by|Max retries exceeded|confirming the ssl certificate|HTTP error|ProtocolError|[Ff]ailed to connect' "$log"; then
        fail "the package index does not answer; check the network, the proxy (https_proxy) and \`pip config list\`, then run it again."
    fi
    # Where a constraint names the version, pip says it in the second way.
    missing=$(sed -n -e 's/.*No matching distribution found for \([^ ]*\).*/\1/p' \
        -e 's/.*The user requested (constraint) \(.*\)/\1/p' "$log" | head -n 1)
    if [ -n "$missing" ]; then
        fail "the package index has no wheel of $missing for this Python and machine; see $log."
    fi
    fail "$(sed -n 's/.*ERROR: //p' "$log" | tail -n 1) See $log."
}

# One at a time: two terminals may ask for two targets.
if command -v flock >/dev/null; then
    exec 9< deploy/install.sh
    # On NFS a file that is open for reading alone cannot be locked; then nothing is waited for.
    flock -n 9 2>/dev/null || { echo "waiting for another installation into .venv"; flock 9 2>/dev/null || :; }
fi

reason=
if [ -e .venv ] || [ -L .venv ]; then reason=$(unusable); fi
if [ -e .venv ] && [ -z "$reason" ]; then
    TORCH_INDEX=${TORCH_INDEX:-$(recorded 3)}
    case $(recorded 2) in *dev*) extras=all,dev ;; esac
    if [ "$(state | tail -n +2)" = "$(tail -n +2 .venv/ready)" ]; then exit; fi
    echo "bringing .venv up to date"
else
    [ -z "$reason" ] || echo "making .venv anew, because it $reason"
    find_python
    rm -rf .venv
    check_space
    echo "installing into .venv with $python (several minutes the first time: PyTorch is gigabytes)"
    said=$("$python" -m venv .venv 2>&1) || fail "$python cannot make .venv: $(printf %s "$said" | tail -n 1)"
fi

: > .venv/installing
mkdir -p .venv/tmp
# Until pip installs something, what was there still works.
trap 'rm -rf .venv/tmp; grep -q "Installing collected packages" "$log" 2>/dev/null || rm -f .venv/installing' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if TMPDIR=$PWD/.venv/tmp PIP_USER=0 .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --only-binary=:all: -c deploy/constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -e ".[$extras]" \
    > "$log" 2>&1; then
    (umask 077 && state > .venv/ready) # an index's URL may hold a password
    rm .venv/installing
else
    explain
fi
