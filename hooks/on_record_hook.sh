#!/bin/sh
# Runs once for every recording, after its file is sealed: $1 is the stream's name, $2 the file's
# absolute path. Replace it, or point hooks.on_record at a script of your own; README.md beside this
# file has the contract and examples.

line="recorded $1 -> $2 (${ONRECORD_BYTES:-?} bytes, ${ONRECORD_DURATION_MS:-?} ms)"

# The server puts everything printed here into its log.
printf '%s\n' "$line"

if [ -n "${ONRECORD_HOOK_LOG:-}" ]; then
  printf '%s %s\n' "${ONRECORD_ENDED_AT:-}" "$line" >> "$ONRECORD_HOOK_LOG"
fi
