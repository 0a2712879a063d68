# Sourced by scripts/deploy, scripts/test-localstack and infra/build: the tools of deployment, each in an environment of its own
# below .localstack/, so that none of them meets the library's dependencies.

tools=".localstack"

fail() {
    printf 'headwater: %s\n' "$@" >&2
    exit 1
}

# python_of 3.13: an interpreter of exactly that version. A name on PATH may be a shim with nothing behind it, so each
# candidate is run. PYTHON_3_13=/path names one.
python_of() {
    local version="$1" named candidate
    named="PYTHON_${version/./_}"
    for candidate in "${!named:-}" "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if [[ -n "$candidate" ]] &&
            [[ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" == "$version" ]]; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# environment NAME PYTHON REQUIREMENTS...: a virtual environment with exactly these, made once.
environment() {
    local where="$tools/$1" python="$2" stamp
    shift 2
    stamp="$("$python" -V; cat "$@" | sha256sum; pwd)"
    if [[ -f "$where/stamp" && "$(cat "$where/stamp")" == "$stamp" ]]; then return; fi
    echo "installing $where (once)"
    rm -rf "$where"
    "$python" -m venv "$where"
    "$where/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
    local file
    for file in "$@"; do
        "$where/bin/uv" pip install --quiet --python "$where/bin/python" --requirement "$file" ||
            fail "the tools of $file could not be installed; the reason stands above."
    done
    printf '%s' "$stamp" >"$where/stamp"
}

# sam ...: the pinned SAM, without telemetry. Its build finds uv and the functions' Python.
sam_python() {
    python_of 3.13 || python_of 3.12 || python_of 3.11 || fail "SAM needs Python 3.11, 3.12 or 3.13, and there is none."
}
sam() {
    PATH="$PWD/$tools/sam/bin:$PATH" SAM_CLI_TELEMETRY=0 "$tools/sam/bin/sam" "$@"
}

# localstack_environment PYTHON: LocalStack with the executor of ours, and what the platform brings into functions.
localstack_environment() {
    local python="$1" own="$tools/localstack" stamp
    environment localstack "$python" infra/localstack/requirements.txt
    stamp="$(cat infra/localstack/{pyproject.toml,headwater_executor.py,runtime-requirements.txt} | sha256sum)"
    if [[ -f "$own/own-stamp" && "$(cat "$own/own-stamp")" == "$stamp" ]]; then return; fi
    "$own/bin/uv" pip install --quiet --python "$own/bin/python" --no-deps --no-build-isolation --reinstall \
        ./infra/localstack || fail "the executor could not be installed."
    rm -rf infra/localstack/{build,*.egg-info} "$tools/runtime"
    UV_LINK_MODE=copy "$own/bin/uv" pip install --quiet --python "$python" --no-deps --target "$tools/runtime" \
        --requirement infra/localstack/runtime-requirements.txt || fail "the functions' runtime could not be installed."
    printf '%s' "$stamp" >"$own/own-stamp"
}
