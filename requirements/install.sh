#!/bin/sh
# Make (or bring up to date) the environment in .venv/: pip installs only uv, uv installs the rest, everything by hash.
# Called by `make setup`; needs a Python of 3.11 or later with pip, nothing else. Decision: docs/decisions/0001.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)

# An environment that is active, or settings that send packages elsewhere, must not leak in.
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV \
    UV_PROJECT_ENVIRONMENT UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="not there"
    die "recsvc needs Python 3.11 or later; ${PYTHON:-python3} is $found. Install one, then: make setup PYTHON=/path/to/python3.11"
fi
"$python" -m pip --version >/dev/null 2>&1 ||
    die "$python has no pip. Install it (Debian, Ubuntu: apt install python3-pip), then run make again."

venv_python=$here/.venv/bin/python
if [ -n "$(ls -A .venv 2>/dev/null)" ] && [ ! -e .venv/pyvenv.cfg ]; then
    die "$here/.venv is not a Python environment. Move it away, then run make again."
fi
# Scripts in an environment hold its path: one that was moved, or whose interpreter has gone, is made anew.
if [ -e .venv ] && { [ "$(cat .venv/.folder 2>/dev/null || echo "$here")" != "$here" ] || ! "$venv_python" -c "$new_enough" 2>/dev/null; }; then
    rm -rf .venv
fi
if [ ! -e .venv/pyvenv.cfg ]; then
    echo "Making the environment in .venv/ ($("$python" --version))"
    "$python" -m venv --without-pip .venv
fi
printf '%s\n' "$here" >.venv/.folder

uv_version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/uv.txt)
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
    echo "Installing uv $uv_version with pip"
    "$python" -m pip --python "$venv_python" install --quiet --no-deps --only-binary=:all: --require-hashes -r requirements/uv.txt
fi

# uv does not read pip's configuration. Where pip was told to use a mirror, or the machine has certificates of its own
# (a company's proxy), uv is told the same; otherwise it brings what it needs.
mirror=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
if [ -n "$mirror" ]; then
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
fi
if "$python" -c 'import ssl, sys; sys.exit(not ssl.create_default_context().get_ca_certs())'; then
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
fi
# Without a home that can be written, uv keeps its cache for this one run only.
if [ -z "${UV_CACHE_DIR:-}${XDG_CACHE_HOME:-}" ] && [ ! -w "${HOME:-}" ]; then
    export UV_NO_CACHE=1
fi

# On a terminal uv shows its progress; into a pipe it would only list a hundred names.
quiet=--quiet
if [ -t 2 ]; then
    quiet=
fi
echo "Installing the packages of requirements/dev.txt with uv"
# shellcheck disable=SC2086
.venv/bin/uv pip install $quiet --python "$venv_python" --require-hashes -r requirements/dev.txt
.venv/bin/uv pip install --python "$venv_python" --quiet --no-deps --no-build-isolation --editable .

if [ "$(uname -s)" = Linux ] && ! "$venv_python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
    die "the system library libgomp.so.1 (OpenMP, needed to train) is missing. Debian, Ubuntu: apt install libgomp1; Fedora: dnf install libgomp. Then run make again."
fi
touch .venv/.ready
