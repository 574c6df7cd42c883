#!/bin/sh
# Tells a URL of every recording: POSTs its manifest, as JSON, to WEBHOOK_URL. Point hooks.on_record at it;
# README.md beside this file lists its variables.
#
# One try, one line, exit 0 only once the receiver has answered with 2xx: trying again is the server's
# business. URL and token reach curl by standard input, never by an argument, which every user of the machine
# can read.
set -u
umask 077

fail() {
  printf 'webhook: %s\n' "$*" >&2
  exit 1
}

url=${WEBHOOK_URL:-}
case $url in
  http://?* | https://?*) ;;
  '') fail 'WEBHOOK_URL is not set: it names where to POST to' ;;
  *) fail "WEBHOOK_URL doesn't begin with http:// or https://" ;;
esac
# What may be told: a receiver's path and query are often its secret, and this output is shown to others.
receiver=${url#*://}
receiver=${receiver%%[/?#]*}
receiver=${url%%://*}://${receiver##*@}
case $url in *[[:cntrl:]]*) fail 'WEBHOOK_URL has characters that no address may have' ;; esac
command -v curl >/dev/null 2>&1 || fail 'there is no curl: install it'

token=${WEBHOOK_TOKEN:-}
token_file=${WEBHOOK_TOKEN_FILE:-}
if [ -z "$token" ] && [ -n "$token_file" ]; then
  [ -r "$token_file" ] ||
    fail "can't read $token_file, which WEBHOOK_TOKEN_FILE names: is it there, and may $(id -un) read it?"
  IFS= read -r token <"$token_file" || [ -n "$token" ] || fail "$token_file, which WEBHOOK_TOKEN_FILE names, is empty"
  token=${token%"$(printf '\r')"}
fi
case $token in *[!\ -~]* | *[\"\\]*) fail 'WEBHOOK_TOKEN has characters that no header may have' ;; esac

body=${ONRECORD_MANIFEST:-}
[ -r "$body" ] || fail "can't read the manifest '$body', which ONRECORD_MANIFEST names"
answer=$(mktemp) || fail "can't make a file in ${TMPDIR:-/tmp}"
trap 'rm -f "$answer"' EXIT
trap 'exit 1' HUP INT TERM

# A line of a curl configuration: a word, and its value quoted.
option() { printf '%s = "%s"\n' "$1" "$(printf %s "$2" | sed 's/[\\"]/\\&/g')"; }

# A redirect would turn the POST into a GET, and take the token elsewhere: it is an answer like any other.
status=$(
  {
    option url "$url"
    [ -z "$token" ] || option header "Authorization: Bearer $token"
  } | curl -q --config - --silent --show-error --globoff --max-time "${WEBHOOK_TIMEOUT:-60}" \
      --header 'Content-Type: application/json' --header "Idempotency-Key: ${ONRECORD_ID:-}" \
      --header "Onrecord-Attempt: ${ONRECORD_ATTEMPT:-1}" \
      --data-binary "@$body" --output "$answer" --write-out '%{http_code}'
) || fail "$receiver can't be reached (curl says why above)"

case $status in
  2??) printf 'webhook: %s took it (%s)\n' "$receiver" "$status" ;;
  *) fail "$receiver answered $status: $(head -c 300 "$answer" | tr -c '[:print:]' ' ')" ;;
esac
