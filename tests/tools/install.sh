#!/usr/bin/env bash
# Installs the tools that judge recordings: Debian's, and those in Python into target/tools-venv, once for each list
# of versions.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(
  gir1.2-gst-plugins-base-1.0
  gir1.2-gstreamer-1.0
  gstreamer1.0-libav
  gstreamer1.0-plugins-good
  mpv
  pulseaudio
  python3-gi
  python3-venv
)
if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
  sudo=()
  ((EUID == 0)) || sudo=(sudo)
  "${sudo[@]}" apt-get update -q
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qy --no-install-recommends "${packages[@]}"
fi

venv=target/tools-venv
list=tests/tools/requirements.txt
cmp -s "$list" "$venv/installed.txt" && exit 0
rm -rf "$venv"
# decord's wheels and Debian's bindings of GStreamer are for the system's Python.
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$list"
cp "$list" "$venv/installed.txt"
