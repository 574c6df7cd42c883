#!/usr/bin/env bash
# Puts the Python tools that judge recordings into target/tools-venv, once for each list of versions.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/tools-venv
list=tests/tools/requirements.txt
cmp -s "$list" "$venv/installed.txt" && exit 0
rm -rf "$venv"
# decord's wheels and Debian's bindings of GStreamer are for the system's Python.
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$list"
cp "$list" "$venv/installed.txt"
