#!/bin/sh
# Make a virtual environment, or bring it up to date:  venv.sh PYTHON VENV REQUIREMENTS
#
# PYTHON may be too old or missing: then any newer one on PATH is taken.  What a fresh Debian lacks (python3-venv; a
# compiler and headers where a dependency has no wheel) is installed when we are root, and named when we are not.
set -eu

python=$1 venv=$2 requirements=$3

say() { printf '%s\n' "$*" >&2; }

# A system package is installed by root; anybody else is told the one command.
need() {
    if command -v apt-get >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ]; then
            say "installing with apt-get: $*"
            apt-get update </dev/null >"$venv.log" 2>&1 || say "apt-get update failed; trying with the lists at hand"
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null >"$venv.log" 2>&1 ||
                { cat "$venv.log" >&2; exit 1; }
            rm -f "$venv.log"
            return
        fi
        say "something is missing; this brings it:"
        say "    sudo apt-get install $*"
    else
        say "something is missing; on Debian it would come with: apt-get install $*"
        say "please install what your system calls these, and run make again"
    fi
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# A version manager's shim may be on PATH for an interpreter it does not run: so each one is run, not only looked up.
find_python() {
    for candidate in "$python" python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$candidate"; then
            python=$candidate
            return
        fi
    done
    return 1
}

make_venv() {
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$venv.log" 2>&1
}

install() { "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-input "$@" </dev/null; }

mkdir -p "$(dirname "$venv")"
if ! new_enough "$venv/bin/python"; then
    find_python || { need python3 python3-venv && find_python; } || {
        say "Python 3.11 or later is needed; found: $("$python" --version 2>&1)"
        exit 1
    }
    say "making $venv with $("$python" --version 2>&1)"
    make_venv || {
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        "$python" -c 'import ensurepip' 2>/dev/null || need "python$version-venv"
        make_venv || { cat "$venv.log" >&2; rm -rf "$venv" "$venv.log"; exit 1; }
    }
    rm -f "$venv.log"
fi

say "installing $requirements"
install -r "$requirements" || {
    # Nearly always a dependency without a wheel for this Python, on a machine that cannot compile one.
    headers=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if command -v cc >/dev/null 2>&1 && [ -e "$headers/Python.h" ]; then exit 1; fi
    need gcc libc6-dev python3-dev
    install -r "$requirements"
}
install --no-deps --no-build-isolation -e .
