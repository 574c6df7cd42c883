#!/usr/bin/env bash
# Installs what the tests need, then runs all of them. The same on a fresh machine and in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

say "tools"
# ffmpeg and mkvtoolnix judge the files, chromium and firefox publish and play, gstreamer muxes what is to be
# repaired, coturn relays, curl uploads, g++ builds the fuzzer, iproute2 shapes real networks, libfaketime
# sets a server's clock, nginx stands in front.
packages=(
  chromium
  chromium-driver
  coturn
  curl
  ffmpeg
  firefox-esr
  g++
  gstreamer1.0-plugins-base
  gstreamer1.0-plugins-good
  gstreamer1.0-tools
  iproute2
  libfaketime
  mkvtoolnix
  nginx
  procps
)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# The type check needs Node 20 or later, from wherever it comes.
command -v npm >/dev/null || missing+=(nodejs npm)
if ((${#missing[@]})); then
  sudo=()
  ((EUID == 0)) || sudo=(sudo)
  "${sudo[@]}" apt-get update -q
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
fi
npm ci --prefix tests/js --no-audit --no-fund

say "the browser library: types and protocol"
npm test --silent --prefix tests/js

say "format"
cargo fmt --check

say "lints"
cargo clippy --release --all-targets --locked -- -D warnings

say "licences, versions, sources"
# Advisories are checked where their database can be reached: .github/workflows/ci.yml.
command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
cargo deny --locked check --hide-inclusion-graph licenses bans sources

say "tests"
# Firefox's driver is no Debian package.
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
command -v geckodriver >/dev/null || cargo install geckodriver --locked
# With what each has measured.
cargo test --release --locked -- --show-output

say "fuzzing"
tests/fuzz.sh

say "all green"
