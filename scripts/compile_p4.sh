#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compile the pipeline for BMv2, with a digest of the sources by which a test sees that both belong together.
set -eu
cd "$(dirname "$0")/../p4src"

if ! command -v p4c-bm2-ss >/dev/null; then
    echo "make p4: p4c-bm2-ss is not on PATH; install p4c. What is committed in p4src/compiled/ needs no compiling." >&2
    exit 1
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
p4c-bm2-ss --std p4-16 --arch v1model --Werror -o "$new/nvi.json" --p4runtime-files "$new/nvi.p4info.txtpb" nvi.p4
sha256sum -- *.p4 >"$new/sources.sha256"
mkdir -p compiled
cp "$new/nvi.json" "$new/nvi.p4info.txtpb" "$new/sources.sha256" compiled/
echo "make p4: p4src/compiled/ is up to date"
