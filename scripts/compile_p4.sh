#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compile the pipeline, and the forwarder that bench/ compares it with, for BMv2; each with a digest of the sources by
# which a test sees that both belong together.
set -eu
cd "$(dirname "$0")/.."

if ! command -v p4c-bm2-ss >/dev/null; then
    echo "make p4: p4c-bm2-ss is not on PATH; install p4c. What is committed in p4src/compiled/ needs no compiling." >&2
    exit 1
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

compile() (  # DIRECTORY PROGRAM
    cd "$1"
    json=$2.json p4info=$2.p4info.txtpb
    p4c-bm2-ss --std p4-16 --arch v1model --Werror -o "$new/$json" --p4runtime-files "$new/$p4info" "$2.p4"
    sha256sum -- *.p4 >"$new/sources.sha256"
    mkdir -p compiled
    cp "$new/$json" "$new/$p4info" "$new/sources.sha256" compiled/
    echo "make p4: $1/compiled/ is up to date"
)

compile p4src nvi
compile bench forwarder
