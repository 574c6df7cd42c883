#!/bin/sh
# Uploads a recording to S3 or anything that speaks its protocol: $2 becomes <S3_PREFIX><file name> in
# S3_BUCKET. Point hooks.on_record at it; README.md beside this file lists its variables.
#
# One try, one line, exit 0 only once the object is there: trying again is the server's business. Keys
# reach the tools by environment or standard input, never by arguments, which every user of the machine
# can read.
set -u
LC_ALL=C
export LC_ALL

file=${2:-}
name=${file##*/}
# The most that S3 takes in one request.
AT_ONCE=5368709120

fail() {
  printf 's3_upload: %s\n' "$*" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Whether a switch is on; names the variable ($1) if its value ($2) is neither.
on() {
  case $2 in
    1 | true | yes | on) return 0 ;;
    '' | 0 | false | no | off) return 1 ;;
    *) fail "$1 is neither 1 nor 0" ;;
  esac
}

# The value of a variable ($1), or the first line of the file that <variable>_FILE names.
secret() {
  eval "value=\${$1:-} path=\${$1_FILE:-}"
  if [ -z "$value" ] && [ -n "$path" ]; then
    [ -r "$path" ] || fail "can't read $path, which $1_FILE names: is it there, and may $(id -un) read it?"
    IFS= read -r value <"$path" || [ -n "$value" ] || fail "$path, which $1_FILE names, is empty"
    value=${value%"$(printf '\r')"}
  fi
}

settings() {
  bucket=${S3_BUCKET:-}
  [ -n "$bucket" ] || fail 'S3_BUCKET is not set: it names the bucket to upload to'
  region=${S3_REGION:-${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}}
  own_endpoint=${S3_ENDPOINT:-}
  endpoint=${own_endpoint:-https://s3.$region.amazonaws.com}
  endpoint=${endpoint%/}
  case $endpoint in
    http://?* | https://?*) ;;
    *) fail "S3_ENDPOINT is '$own_endpoint', which doesn't begin with http:// or https://" ;;
  esac
  # AWS wants the bucket in the host's name, but has no certificate for a bucket with dots; others take
  # it in the path.
  path_style=${S3_PATH_STYLE:-}
  if [ -z "$path_style" ]; then
    case $own_endpoint$bucket in *[./]*) path_style=1 ;; *) path_style=0 ;; esac
  fi
  on S3_PATH_STYLE "$path_style" && path_style=1 || path_style=0
  on S3_DELETE_AFTER "${S3_DELETE_AFTER:-}" && delete=1 || delete=0
  on S3_MANIFEST "${S3_MANIFEST:-}" && manifest=1 || manifest=0
  prefix=${S3_PREFIX:-}
  prefix=${prefix#/}
  secret AWS_ACCESS_KEY_ID
  access=$value
  secret AWS_SECRET_ACCESS_KEY
  secret_key=$value
  secret AWS_SESSION_TOKEN
  token=$value
  [ -n "$access" ] || fail 'no access key: set AWS_ACCESS_KEY_ID, or AWS_ACCESS_KEY_ID_FILE to a file that holds it'
  [ -n "$secret_key" ] ||
    fail 'no secret key: set AWS_SECRET_ACCESS_KEY, or AWS_SECRET_ACCESS_KEY_FILE to a file that holds it'
}

# Whether curl signs the way S3 wants it: older ones than Debian 12's don't sign the payload's hash.
curl_signs() {
  has curl || return 1
  set -- $(curl -q --version | sed -n '1s/^curl \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  [ "${1:-0}" -gt 7 ] || { [ "${1:-0}" -eq 7 ] && [ "${2:-0}" -ge 88 ]; }
}

# curl uploads in one request, of which S3 takes 5 GiB; the others cut a larger file in parts.
choose_tool() {
  tool=${S3_TOOL:-}
  case $tool in
    curl) curl_signs || fail 'S3_TOOL is curl, but there is none of 7.88 or later' ;;
    aws | rclone) has "$tool" || fail "S3_TOOL is $tool, which is not installed" ;;
    '')
      if [ "$size" -le "$AT_ONCE" ] && curl_signs; then tool=curl
      elif has aws; then tool=aws
      elif has rclone; then tool=rclone
      elif curl_signs; then tool=curl
      else fail 'no tool that can upload: install curl 7.88 or later, aws or rclone'
      fi ;;
    *) fail "S3_TOOL is '$tool': it can be curl, aws or rclone" ;;
  esac
  [ "$tool" != curl ] || [ "$size" -le "$AT_ONCE" ] ||
    fail "$name has $size bytes, and curl can upload no more than 5 GiB: install aws or rclone"
}

# Every byte but RFC 3986's unreserved ones and the slash. What is signed is the path as it is sent, so
# it has to look exactly as the server will encode it.
encode() {
  printf %s "$1" | od -An -v -tx1 | awk '
    BEGIN {
      plain = "-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
      for (code = 33; code < 127; code++) {
        char = sprintf("%c", code)
        if (index(plain, char)) unreserved[sprintf("%02x", code)] = char
      }
    }
    { for (i = 1; i <= NF; i++) printf "%s", ($i in unreserved) ? unreserved[$i] : "%" toupper($i) }'
}

type_of() {
  case $1 in
    *.webm) echo video/webm ;;
    *.mkv) echo video/x-matroska ;;
    *.mp4) echo video/mp4 ;;
    *.json) echo application/json ;;
    *) echo application/octet-stream ;;
  esac
}

url_of() {
  if [ "$path_style" = 1 ]; then
    printf %s "$endpoint/$bucket/$(encode "$1")"
  else
    printf %s "${endpoint%%://*}://$bucket.${endpoint#*://}/$(encode "$1")"
  fi
}

# A line of a curl configuration: a word, and its value quoted.
option() { printf '%s = "%s"\n' "$1" "$(printf %s "$2" | sed 's/[\\"]/\\&/g')"; }

# Sends a signed request to $1: the rest of its configuration is on standard input. Leaves curl's exit
# code, the HTTP status, and all that was said: head, body, errors.
request() {
  reply=$(
    {
      option url "$1"
      option user "$access:$secret_key"
      option aws-sigv4 "aws:amz:$region:s3"
      [ -z "$token" ] || option header "x-amz-security-token: $token"
      cat
    } | curl -q --config - --silent --show-error --globoff --path-as-is --connect-timeout 20 \
      --speed-limit 1024 --speed-time 60 --include --write-out '\nstatus: %{http_code}\n' 2>&1
  )
  exit=$?
  status=$(printf '%s\n' "$reply" | sed -n 's/^status: //p' | tail -n 1)
}

# What an XML element of the reply holds.
element() { printf %s "$reply" | tr '\n' ' ' | sed -n "s/.*<$1>\([^<]*\)<.*/\1/p" | cut -c 1-300; }

# Says what to do about a request that failed.
explain() {
  where="$bucket at $endpoint"
  case $exit in
    0) ;;
    6) fail "$endpoint: no such host: check S3_ENDPOINT and S3_REGION, and this machine's DNS" ;;
    7) fail "$endpoint: no connection: is the server up, and the port right?" ;;
    26) fail "$name: it can't be read, or was moved away during the upload" ;;
    28) fail "$endpoint: timed out: no connection in 20 s, or no data for a minute" ;;
    35 | 51 | 58 | 60) fail "$endpoint: no secure connection: $(why)" ;;
    *) fail "$endpoint: curl failed with exit code $exit: $(why)" ;;
  esac
  code=$(element Code)
  # A reply to HEAD has no body.
  [ -n "$code" ] || case $status in 403) code=AccessDenied ;; 404) code=NoSuchKey ;; esac
  case $code in
    SignatureDoesNotMatch) advice='the secret key is wrong, or a proxy changes the requests' ;;
    InvalidAccessKeyId | NotSignedUp) advice='this server does not know the access key' ;;
    AccessDenied | AllAccessDisabled) advice="these keys may not do that here" ;;
    ExpiredToken | InvalidToken) advice='the session token has expired or belongs to other keys' ;;
    RequestTimeTooSkewed) advice="this machine's clock is wrong ($(date -u +%Y-%m-%dT%H:%M:%SZ)): set it, by NTP for instance" ;;
    NoSuchBucket) advice='there is no such bucket: create it, or mend S3_BUCKET' ;;
    PermanentRedirect | TemporaryRedirect | AuthorizationHeaderMalformed | IllegalLocationConstraintException)
      advice="the bucket is in another region: mend S3_REGION ($region)" ;;
    EntityTooLarge) advice='the server takes no file of this size in one request: install aws or rclone, and set S3_TOOL to it' ;;
    BadDigest | XAmzContentSHA256Mismatch) advice='the bytes that arrived are not those of the file' ;;
    SlowDown | ServiceUnavailable | InternalError) advice='the server is in trouble; it may help to wait' ;;
    *) advice=$(element Message) ;;
  esac
  fail "$where: ${advice:-no reason given} (HTTP $status${code:+, $code})"
}

# curl's own words, without its prefix.
why() { printf '%s\n' "$reply" | sed -n 's/^curl: ([0-9]*) //p' | tail -n 1; }

# How many bytes the object ($1) has; `-` if these keys may not look, nothing if it isn't there.
remote_size() {
  # The hash is that of no bytes; not every curl says it by itself.
  request "$(url_of "$1")" <<END
head
header = "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
END
  [ "$exit" = 0 ] || explain
  case $status in
    200) printf '%s\n' "$reply" | tr -d '\r' | sed -n 's/^[Cc]ontent-[Ll]ength: *//p' | tail -n 1 ;;
    403) echo - ;;
    404) ;;
    *) explain ;;
  esac
}

sha256_of() {
  if has sha256sum; then sha256sum <"$1" | cut -d ' ' -f 1
  elif has openssl; then openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1
  else echo UNSIGNED-PAYLOAD
  fi
}

curl_put() {
  # With the hash signed, the server refuses bytes that changed on the way.
  hash=$(sha256_of "$1") && [ -n "$hash" ] || fail "$1: can't read it"
  request "$(url_of "$2")" <<END
$(option upload-file "$1")
$(option header "Content-Type: $(type_of "$2")")
$(option header "x-amz-content-sha256: $hash")
END
  if [ "$exit" != 0 ] || [ "$status" != 200 ]; then explain; fi
  there=$(remote_size "$2") || exit 1
  [ "$there" = - ] || [ "$there" = "$(wc -c <"$1" | tr -d ' ')" ] ||
    fail "$bucket has ${there:-no} bytes of $2 after the upload"
}

# What a tool said, on one line, is its reason; the end of it says most.
run_tool() {
  said=$("$@" 2>&1 </dev/null) || fail "$1 failed: $(printf %s "$said" | tr -s '\n\t ' ' ' | tail -c 500)"
}

# Neither reads what is configured for others on this machine.
aws_put() {
  (
    AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret_key AWS_SESSION_TOKEN=$token
    [ -n "$token" ] || unset AWS_SESSION_TOKEN
    unset AWS_PROFILE AWS_DEFAULT_PROFILE
    # Servers other than AWS's often know none of the newer checksums.
    AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_CONFIG_FILE=/dev/null
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REQUEST_CHECKSUM_CALCULATION AWS_CONFIG_FILE
    [ -z "$token" ] || export AWS_SESSION_TOKEN
    run_tool aws s3 cp --only-show-errors --endpoint-url "$endpoint" --region "$region" \
      --content-type "$(type_of "$2")" "$1" "s3://$bucket/$2"
  ) || exit 1
}

rclone_put() {
  (
    [ -n "$own_endpoint" ] && provider=Other || provider=AWS
    [ "$path_style" = 1 ] && force=true || force=false
    export RCLONE_CONFIG=/dev/null RCLONE_S3_PROVIDER="$provider" RCLONE_S3_FORCE_PATH_STYLE="$force"
    export RCLONE_S3_ENDPOINT="$endpoint" RCLONE_S3_REGION="$region" RCLONE_S3_NO_CHECK_BUCKET=true
    export RCLONE_S3_ACCESS_KEY_ID="$access" RCLONE_S3_SECRET_ACCESS_KEY="$secret_key"
    export RCLONE_S3_SESSION_TOKEN="$token" RCLONE_S3_ENV_AUTH=false
    run_tool rclone copyto --quiet --retries 1 --header-upload "Content-Type: $(type_of "$2")" \
      "$1" ":s3:$bucket/$2"
  ) || exit 1
}

put() {
  case $tool in
    curl) curl_put "$1" "$2" ;;
    # Both compare what arrived with what they sent by themselves.
    aws | rclone) there=$(wc -c <"$1") && "${tool}_put" "$1" "$2" ;;
  esac
}

# An earlier attempt may have uploaded and deleted it, and been ended before it could say so.
gone() {
  if [ "$delete" = 1 ] && [ -n "${ONRECORD_BYTES:-}" ] && curl_signs; then
    there=$(remote_size "$prefix$name") || exit 1
    [ "$there" != "$ONRECORD_BYTES" ] || { echo "$name is in $bucket since an earlier attempt" && exit 0; }
  fi
  fail "$file is gone: it was moved or deleted before it was uploaded"
}

[ -n "$name" ] || fail 'usage: s3_upload.sh STREAM FILE'
settings
[ -e "$file" ] || gone
if [ ! -f "$file" ] || [ ! -r "$file" ]; then fail "$file can't be read by $(id -un)"; fi
size=$(($(wc -c <"$file")))
choose_tool
put "$file" "$prefix$name"
video_there=$there
if [ "$manifest" = 1 ]; then
  json=${ONRECORD_MANIFEST:-${file%.*}.json}
  [ -r "$json" ] || fail "$json can't be read: S3_MANIFEST asks for the recording's manifest"
  put "$json" "$prefix${json##*/}"
fi
note="$size bytes"
if [ "$video_there" = - ]; then
  note="$note, not looked at again: these keys may not read"
  [ "$delete" = 0 ] || note="$note; so the file stays here"
elif [ "$delete" = 1 ]; then
  rm -f -- "$file" || fail "uploaded, but S3_DELETE_AFTER can't delete $file"
  note="$note, deleted here"
fi
echo "uploaded to $bucket/$prefix$name with $tool ($note)"
