# shellcheck shell=sh
# Read by the other scripts, from the top of the project: what they need from the machine.
# It changes nothing but .venv and .cache, unless the user is root: then missing Debian packages are installed.

say() {
    printf '==> %s\n' "$*" >&2
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# install THING:PACKAGE...: the Debian packages whose thing, a program or a file, is not there.
install() {
    missing=
    for pair in "$@"; do
        thing=${pair%%:*}
        case $thing in
        /*) [ -e "$thing" ] || missing="$missing ${pair#*:}" ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$thing" >/dev/null || missing="$missing ${pair#*:}" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing:$missing (as root on Debian or Ubuntu: apt-get install$missing)"
        return 0
    fi
    say "installing$missing"
    # Several words are meant.
    # shellcheck disable=SC2086
    { DEBIAN_FRONTEND=noninteractive apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } \
        >.cache/apt.log 2>&1 || {
        tail -n 20 .cache/apt.log >&2
        fail "apt-get could not install$missing"
    }
}

# python_with_venv: sets $python to a Python of 3.11 or later that can make environments.
python_with_venv() {
    command -v python3 >/dev/null || install python3:python3
    python=
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || fail "Python 3.11 or later is needed; python3 is $(python3 --version 2>&1 || echo missing)"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install "/nowhere:python$version-venv"
        "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv; Debian has it in python$version-venv"
    fi
}

# environment [GROUP]: .venv with this project, editable, and the packages of a dependency group of pyproject.toml.
environment() {
    group=${1:-}
    mkdir -p .cache
    wanted=$(cksum <pyproject.toml)
    if [ -x .venv/bin/pybuild ] && [ "$(cat ".venv/made-for$group" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    python_with_venv
    say "making .venv with $("$python" --version)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # pip reads dependency groups by itself from version 25.1 on; Debian's is older.
    .venv/bin/python - "$group" >.cache/requirements.txt <<'EOF'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file).get("dependency-groups", {}).get(sys.argv[1], [])))
EOF
    .venv/bin/pip install --quiet --disable-pip-version-check -e . -r .cache/requirements.txt
    printf '%s\n' "$wanted" >".venv/made-for$group"
}
