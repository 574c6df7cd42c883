#!/usr/bin/env bash
# Installs what the tests need, then runs all of them. The same on a fresh machine and in CI.
#
# Tests mostly wait, for windows that close, graces that pass, pages that play. So the browsers, which go one
# at a time, have a process of their own beside the other tests, and what only needs the processor is done
# beside both with what they leave of it. What measures milliseconds of a browser has the machine to itself.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=target/run
mkdir -p "$logs"
failed=()
declare -A started

say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# beside NAME COMMAND…: starts it; `join NAME` waits for it and shows what it said.
beside() {
  local name=$1
  shift
  "$@" >"$logs/$name" 2>&1 </dev/null &
  started[$name]=$!
}
join() {
  local status=0
  wait "${started[$1]}" || status=$?
  say "$1"
  cat "$logs/$1"
  if ((status)); then
    failed+=("$1")
    echo "$1 failed with exit code $status"
  fi
}

# A program for the tests that is no Debian package. How fast it runs matters less than how fast it is built.
program() { command -v "$1" >/dev/null || nice -n 19 cargo install --debug --locked "$1" --target-dir target/programs; }

say "tools"
# ffmpeg, mediainfo and mkvtoolnix judge the files, chromium and firefox publish and play, gstreamer muxes what is to be
# repaired, coturn relays, curl uploads, g++ builds the fuzzer, iproute2 shapes real networks, libfaketime
# sets a server's clock, nginx stands in front, valgrind counts instructions.
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
  mediainfo
  mkvtoolnix
  nginx
  procps
  valgrind
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
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

library() { npm ci --prefix tests/js --no-audit --no-fund && npm test --silent --prefix tests/js; }
lints() { nice -n 19 cargo clippy --profile ci --all-targets --locked -- -D warnings; }
# Advisories are checked where their database can be reached: .github/workflows/ci.yml.
licences() { program cargo-deny && cargo deny --locked check --hide-inclusion-graph licenses bans sources; }
# The test programs get what cargo would give them; the tests' times are told to this variable alone.
timed() { RUSTC_BOOTSTRAP=1 "$@" -Z unstable-options --report-time --show-output; }
browsers() { timed "$it" browser:: --skip=browser::sound:: --test-threads=1; }
others() {
  local program status=0
  for program in "${programs[@]}"; do timed "$program" || status=1; done
  timed "$it" --skip=browser:: --skip=tools:: || status=1
  return "$status"
}
alone() { timed "$it" browser::sound:: tools:: --test-threads=1; }

say "format"
cargo fmt --check

say "building"
beside drivers program geckodriver
beside library library
beside judges tests/tools/install.sh
cargo test --profile ci --locked --no-run 2>&1 | tee "$logs/build"
mapfile -t programs < <(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$logs/build")
it=$(printf '%s\n' "${programs[@]}" | grep '/it-')
mapfile -t programs < <(printf '%s\n' "${programs[@]}" | grep -v '/it-')
join drivers
join library
join judges

say "tests"
beside others others
beside browsers browsers
beside lints lints
join lints
beside licences licences
join licences
join others
join browsers
beside alone alone
join alone

say "the slowest tests"
sed -n 's/^test \(.*\) \.\.\. \(ok\|FAILED\) <\([0-9.]*\)s>$/\3 s  \1/p' "$logs"/{others,browsers,alone} |
  sort -rn | sed -n 1,20p

if ((${#failed[@]})); then
  say "failed: ${failed[*]}"
  exit 1
fi
say "all green"
