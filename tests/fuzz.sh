#!/usr/bin/env bash
# Builds the fuzz targets and runs each for so many seconds (600), two at a time; with names behind that,
# only those. Fails on any finding; its input is then in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
dir=tests/fuzz out=target/fuzz host=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(sed -n 's/^name = "\([a-z0-9]*\)"$/\1/p' "$dir/Cargo.toml")
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked

began=$SECONDS
# Without a sanitizer the stable compiler is enough, and there is no unsafe code of ours to watch.
cargo fuzz build --sanitizer none --fuzz-dir "$dir" --target-dir "$out"
echo "built in $((SECONDS - began)) s"

run() {
  local name=$1 found=$out/corpus/$1 artifacts=$out/artifacts/$1/ log=$out/$1.log status=0
  local words=()
  [[ -f $dir/$name.dict ]] && words=("-dict=$dir/$name.dict")
  mkdir -p "$found" "$artifacts"
  # What is found goes to the first folder; the second holds the committed seeds.
  "$out/$host/release/$name" "$found" "$dir/corpus/$name" \
    -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=25 -artifact_prefix="$artifacts" \
    -print_final_stats=1 "${words[@]}" >"$log" 2>&1 || status=$?
  local executions coverage
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
  printf '%-8s %9s executions, %s edges, %s inputs\n' "$name" "${executions:-?}" "${coverage#cov: }" \
    "$(find "$found" -type f | wc -l)"
  if ((status)); then
    echo "$name: a finding (exit $status):"
    tail -n 40 "$log"
  fi
  return "$status"
}

failed=0 active=0
for name in "${targets[@]}"; do
  if ((active == 2)); then
    wait -n || failed=1
    active=1
  fi
  run "$name" &
  active=$((active + 1))
done
while ((active-- > 0)); do
  wait -n || failed=1
done
exit "$failed"
