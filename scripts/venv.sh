# Sourced by scripts/demo, scripts/test, scripts/lint: the virtual environment and what is installed in it.
#
#   prepare EXTRA...   makes the environment if need be and installs headwater with these extras.
#
# Idempotent: a stamp for each set of extras holds a hash of what the installation depends on, so a second call
# does nothing. Versions come from requirements.lock, used as constraints: each script installs only what it needs.
#
#   HEADWATER_VENV   where the environment lies (default: .venv in the repository)
#   PYTHON           the interpreter to make it with (default: the first Python 3.11 or newer on PATH)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv="${HEADWATER_VENV:-.venv}"

fail() {
    printf 'headwater: %s\n' "$@" >&2
    exit 1
}

# A name on PATH may be a shim without an interpreter behind it, so each candidate is run, not just looked up.
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name names=(python3 python3.13 python3.12 python3.11 python)
    if [[ -n "${PYTHON:-}" ]]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        if new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer found (tried: ${names[*]})." \
        "Install one, or name it: PYTHON=/path/to/python3 $0"
}

# What the installed set follows from. The repository's place counts: an editable install and scripts in bin/ name it.
fingerprint() {
    "$venv/bin/python" -c '
import hashlib, pathlib, sys
digest = hashlib.sha256(f"{sys.version} {pathlib.Path.cwd()}".encode())
for name in ("pyproject.toml", "requirements.lock"):
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())'
}

# An environment that was moved, or whose interpreter is gone, cannot be repaired: it is made afresh.
usable() {
    [[ -f "$venv/headwater-root" && "$(cat "$venv/headwater-root")" == "$PWD" ]] && new_enough "$venv/bin/python"
}

make_venv() {
    local python
    python="$(find_python)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: its modules 'venv' and 'ensurepip' are missing." \
            "On Debian and Ubuntu: apt install python3-venv"
    if [[ -e "$venv" && ! -f "$venv/pyvenv.cfg" && -n "$(ls -A "$venv")" ]]; then
        fail "$venv exists and is no virtual environment: remove it, or set HEADWATER_VENV to another place."
    fi
    "$python" -m venv --clear "$venv" || fail "$python -m venv $venv failed; the reason stands above."
    printf '%s\n' "$PWD" >"$venv/headwater-root"
}

# uv installs the same set as pip in a third of its time. It lies beside the environment's packages, not among them.
# pip stands in where uv cannot be had or cannot install: it alone reads pip's own settings of indexes and proxies.
with_uv() {
    if [[ ! -x "$venv/uv/bin/uv" ]]; then
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
            --target "$venv/uv" uv==0.13.9 || return
    fi
    "$venv/uv/bin/uv" pip install --python "$venv/bin/python" --constraint requirements.lock --editable ".[$1]"
}
with_pip() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --constraint requirements.lock --editable ".[$1]"
}

# Shows one changing line on a terminal and nothing elsewhere; the whole output is kept for a failure.
install() {
    local log="$venv/install.log" extras="$1" line status=0
    { with_uv "$extras" || with_pip "$extras"; } 2>&1 | tee "$log" |
        while IFS= read -r line; do
            if [[ -t 1 ]]; then printf '\r\033[K    %.100s' "$line"; fi
        done || status=$?
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
    if ((status != 0)); then
        tail -n 30 "$log" >&2
        fail "the installation failed; its end stands above, all of it in $log."
    fi
}

prepare() {
    local extras stamp
    extras="$(IFS=,; printf '%s' "$*")"
    if usable; then
        echo "1/3 $venv is there"
    else
        echo "1/3 making $venv"
        make_venv
    fi
    stamp="$venv/headwater-$extras.stamp"
    if [[ -f "$stamp" && "$(cat "$stamp")" == "$(fingerprint)" ]]; then
        echo "2/3 headwater[$extras] is installed"
    else
        echo "2/3 installing headwater[$extras] (about half a minute)"
        rm -f "$stamp"
        install "$extras"
        fingerprint >"$stamp"
    fi
}
