#!/bin/sh
# Converts a recording to an MP4 (H.264 and AAC) that every player and editor takes: <folder>/<name>.mp4, in
# the folder `mp4` beside the recording or in MP4_DIR. Point hooks.on_record at it; README.md beside this
# file lists its variables. It needs ffmpeg 5.1 or later.
#
# The MP4 appears under its name when it is whole, and run again the script finds it there.
set -u
umask 027

file=${2:-}
name=${file##*/}
ffmpeg=${MP4_FFMPEG:-ffmpeg}

fail() {
  printf 'to_mp4: %s\n' "$*" >&2
  exit 1
}

[ -n "$name" ] || fail 'usage: to_mp4.sh STREAM FILE'
# Beside the recording itself the server would take it for another recording at its next start.
folder=${MP4_DIR:-${file%"$name"}mp4}
target=$folder/${name%.*}.mp4
if [ -e "$target" ] && [ ! "$file" -nt "$target" ]; then
  echo "$target is there already"
  exit 0
fi
[ -r "$file" ] || fail "$file can't be read: was it moved or deleted?"
command -v "$ffmpeg" >/dev/null 2>&1 || fail "there is no $ffmpeg: install it, or set MP4_FFMPEG"
mkdir -p "$folder" || fail "can't make the folder $folder"

# What the file's first video track says of itself; ffprobe comes with ffmpeg.
case $ffmpeg in */*) ffprobe=${ffmpeg%/*}/ffprobe ;; *) ffprobe=ffprobe ;; esac
probe() {
  "$ffprobe" -v error -select_streams v:0 -show_entries "$1" -of default=noprint_wrappers=1:nokey=1 "file:$file" </dev/null |
    head -n 1
}

# A camera's pictures grow while its browser learns what the line takes, and ffmpeg would keep the size of
# the first one. The largest is the frame for all; H.264 wants even numbers.
width=${ONRECORD_WIDTH:-} height=${ONRECORD_HEIGHT:-}
[ -n "$width" ] || width=$(probe stream=width)
[ -n "$height" ] || height=$(probe stream=height)
set -- -map 0:v:0? -map 0:a:0?
if [ -n "$width" ] && [ -n "$height" ]; then
  # ffmpeg turns what was recorded lying on its side.
  case $(probe stream_side_data=rotation) in 90 | -90 | 270 | -270) turned=$width width=$height height=$turned ;; esac
  width=$(((width + 1) / 2 * 2)) height=$(((height + 1) / 2 * 2))
  set -- "$@" -c:v libx264 -preset veryfast -crf 20 \
    -vf "scale=$width:$height:force_original_aspect_ratio=decrease,pad=$width:$height:-1:-1,format=yuv420p"
  # Each picture at its own time: at a constant rate ffmpeg would double some and drop others.
  major=$("$ffmpeg" -version | sed -n '1s/^ffmpeg version n\{0,1\}\([0-9][0-9]*\)\..*/\1/p')
  if [ "${major:-99}" -ge 7 ]; then
    set -- "$@" -fps_mode vfr -enc_time_base demux
  else
    set -- "$@" -vsync vfr -enc_time_base 1:1000
  fi
fi

# Hidden from whoever looks for finished files; named so that the next attempt replaces what a kill left.
partial=$folder/.${ONRECORD_ID:-$$}.mp4
trap 'rm -f "$partial"' EXIT
trap 'exit 1' HUP INT TERM
# Holes in the sound, and the time before it, become silence: an MP4 would close them.
"$ffmpeg" -nostdin -loglevel error -y -i "file:$file" "$@" \
  -c:a aac -b:a 128k -af 'aresample=async=1:min_hard_comp=0.01:first_pts=0' \
  -movflags +faststart -f mp4 "file:$partial" </dev/null || fail "ffmpeg can't convert $name"
sync "$partial" || fail "$partial can't be written to the disk"
mv -f "$partial" "$target" || fail "can't rename it to $target"
echo "converted to $target"
