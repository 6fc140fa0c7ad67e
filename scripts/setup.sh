#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Make this clone ready to run: Debian packages, and the virtual environment .venv. Quick when all is there.
#
#   setup.sh          what `make run` and `make test` need
#   setup.sh shell    what `make shell` needs: p4runtime-shell in .venv-shell, by itself, because it insists on old
#                     versions of what the rest needs new
#   setup.sh openflow what one benchmark compares with: os-ken and Open vSwitch in .venv-openflow, by themselves
set -eu
cd "$(dirname "$0")/.."
for_what=${1-}

say() { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: $*" >&2; exit 1; }

# A Python of at least 3.11 that can make virtual environments. The one on PATH if it will do, else the system's.
find_python() {
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

install_packages() {
    installed=$(dpkg-query -W -f '${Package}=${db:Status-Status}\n' "$@" 2>/dev/null || :)
    missing=""
    for package in "$@"; do
        printf '%s\n' "$installed" | grep -qx "$package=installed" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing Debian packages:$missing"
    root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "this needs root; as root: apt-get install --no-install-recommends$missing"
        root=sudo
    fi
    $root apt-get update </dev/null || fail "apt-get update failed; see above"
    # shellcheck disable=SC2086  # one word per package
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing </dev/null ||
        fail "apt-get could not install$missing; see above"
}

# What a virtual environment was made of: it is made again when that changes.
digest() { cat "$@" | cksum; }

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    # Without what is only recommended: for mininet that is Open vSwitch, which nothing here uses.
    set -- mininet net-tools iproute2 nftables procps ethtool iputils-ping curl iperf3 tcpdump
    # Tests only: programs that endpoints run, and what sshd needs.
    set -- "$@" iputils-tracepath traceroute openssh-client libwrap0
    [ -n "$(find_python)" ] || set -- python3 python3-venv "$@"
    install_packages "$@"
else
    say "not a Debian system: install mininet, iproute2, nftables, ethtool, ping, tracepath, traceroute, curl, iperf3,"
    say "tcpdump, ssh and Python 3.11 yourself"
fi
python=$(find_python)
[ -n "$python" ] || fail "no Python of at least 3.11 with venv; apt-get install python3 python3-venv"

# make_venv DIRECTORY STAMP PIP-ARGUMENTS...: a virtual environment that is whole, or made again next time.
make_venv() {
    directory=$1 stamp=$2
    shift 2
    if [ -e "$directory/.complete" ] && [ "$(cat "$directory/.complete")" = "$stamp" ]; then
        return 1
    fi
    if ! "$directory/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "making $directory with $python"
        "$python" -m venv --clear "$directory" </dev/null
    fi
    rm -f "$directory/.complete"
    say "installing Python packages into $directory (a minute or two the first time)"
    failed="$directory/.failed"
    { "$directory/bin/python" -m pip install --disable-pip-version-check "$@" </dev/null || : >"$failed"; } |
        sed -un 's/^Collecting \([^ ]*\).*/  \1/p'
    [ ! -e "$failed" ] || { rm "$failed"; fail "pip could not install everything into $directory; see above"; }
}

# get_program NAME PATH PACKAGE USE: a program alone, out of its Debian package, into .venv/bin. Installing the package
# would start a server of its own on this machine, and enable it.
get_program() {
    name=$1 path=$2 package=$3 use=$4
    for program in ".venv/bin/$name" "$(command -v "$name" || :)" "/$path"; do
        [ ! -x "$program" ] || return 0
    done
    if ! command -v dpkg-deb >/dev/null || ! command -v apt-get >/dev/null; then
        say "no $name: install it yourself for $use"
        return 0
    fi
    say "getting $name out of its Debian package"
    unpacked=$(mktemp -d)
    if ! (cd "$unpacked" && apt-get download "$package" >log 2>&1); then
        root=""
        [ "$(id -u)" = 0 ] || root=sudo
        $root apt-get update </dev/null >"$unpacked/log" 2>&1 || :
        (cd "$unpacked" && apt-get download "$package" >>log 2>&1) || :
    fi
    if dpkg-deb -x "$unpacked/$package"_*.deb "$unpacked/files" 2>>"$unpacked/log"; then
        install -m 755 "$unpacked/files/$path" ".venv/bin/$name"
    else
        tail -3 "$unpacked/log" >&2
        say "no $name: $use need it, nothing else does"
    fi
    rm -r "$unpacked"
}

finish() { printf '%s\n' "$2" >"$1/.complete"; }

if [ "$for_what" = shell ]; then
    stamp=$(digest scripts/setup.sh)
    if make_venv .venv-shell "$stamp" p4runtime-shell setuptools; then
        finish .venv-shell "$stamp"
    fi
    exit 0
fi

# get_openvswitch DIRECTORY: its programs, out of their Debian packages, without a service; and the libraries they need.
get_openvswitch() {
    [ ! -e "$1/.complete" ] || return 0
    command -v dpkg-deb >/dev/null && command -v apt-get >/dev/null || fail "this is not a Debian system"
    say "getting Open vSwitch out of its Debian packages"
    unpacked=$(mktemp -d)
    (cd "$unpacked" && apt-get download openvswitch-switch openvswitch-common >log 2>&1) ||
        { tail -3 "$unpacked/log" >&2; rm -r "$unpacked"; fail "apt-get could not download openvswitch-switch"; }
    for package in "$unpacked"/*.deb; do
        dpkg-deb -x "$package" "$1"
        dpkg-deb -f "$package" Depends
    done | grep -o '\blib[^ ,]*' | sort -u >"$unpacked/libraries"
    # shellcheck disable=SC2046  # one word per package
    install_packages $(cat "$unpacked/libraries")
    rm -r "$unpacked"
    touch "$1/.complete"
}

if [ "$for_what" = openflow ]; then
    stamp=$(digest scripts/setup.sh)
    (
        if make_venv .venv-openflow "$stamp" os-ken; then
            finish .venv-openflow "$stamp"
        fi
        get_openvswitch .venv-openflow/ovs
    ) || say "no OpenFlow to compare with: the benchmark 'openflow' will be skipped"
    exit 0
fi

stamp="$(pwd) $(digest pyproject.toml scripts/setup.sh)"
if make_venv .venv "$stamp" --editable '.[test]'; then
    # PTF asks for netifaces, which must be compiled and which it never imports.
    .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps 'ptf>=0.12' </dev/null ||
        fail "pip could not install ptf into .venv; see above"
    .venv/bin/python -c 'import nvi.cli, pytest, ptf' || fail "the packages in .venv are not usable; see above"
    # Mininet is a Debian package, of any Python 3: let .venv see that module, and nothing else of the system's.
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for mininet in /usr/lib/python3/dist-packages/mininet /usr/lib/python3*/site-packages/mininet; do
        [ ! -d "$mininet" ] || ln -sfn "$mininet" "$packages/mininet"
    done
    finish .venv "$stamp"
    say "ready: .venv/bin/nvi"
fi
get_program nats-server usr/sbin/nats-server nats-server "'nvi up --agents process' and its tests"
get_program sshd usr/sbin/sshd openssh-server "a few tests"
