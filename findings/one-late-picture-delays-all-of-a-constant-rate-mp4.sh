#!/usr/bin/env bash
# One picture that is 20 ms late makes every picture behind it a whole one late in the MP4 that plain ffmpeg writes.
#
# Versions   ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0), the same in 5.1.9 (Debian 12)
# One guess  ffmpeg -i in.webm out.mp4 puts pictures on a grid of the mean rate, each at the place that is nearest
#            to its time: off by half a picture at most, and right again with the next picture that is in time.
# Seen       Of 120 pictures at 30 a second the eleventh comes 20 ms late. It is doubled, and what is doubled isn't
#            taken back, since a picture is only dropped once the grid is more than a whole one ahead: the MP4 has
#            121 pictures, and one that turns white at 2.000 s does so at 2.033 s, behind its sound. 10 ms late, and
#            nothing happens; with -fps_mode vfr -enc_time_base demux it is at 2.000 s.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install imageio-ffmpeg==0.6.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import re, subprocess, sys
import imageio_ffmpeg

folder = sys.argv[1]

def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

def film(late):
    """Black for 60 pictures, then white for 60; the eleventh is late by so many milliseconds."""
    even, file = f"{folder}/even.webm", f"{folder}/late.webm"
    ffmpeg("-f", "lavfi", "-i", "color=black:s=160x90:r=30,drawbox=c=white:t=fill:enable='gte(n,60)'", "-t", "4",
           "-c:v", "libvpx", "-deadline", "realtime", even)
    ffmpeg("-i", even, "-t", "60", "-c", "copy", "-bsf:v", rf"setts=pts=PTS+if(eq(N\,10)\,{late}\,0):dts=PTS", file)
    return file

def seen(file):
    """How many pictures, and when the first white one comes."""
    said = ffmpeg("-i", file, "-t", "60", "-vf", "signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-",
                  "-f", "null", "-")
    pictures = re.findall(r"pts_time:(\S+)\s+lavfi\.signalstats\.YAVG=(\S+)", said)
    return len(pictures), round(next(float(time) for time, level in pictures if float(level) > 120), 3)

def converted(late, *options):
    output = f"{folder}/out.mp4"
    ffmpeg("-i", film(late), "-t", "60", *options, output)
    return seen(output)

print("as it is   ", seen(film(20)))
for late in (0, 10, 20):
    print(f"plain, {late:2} ms", converted(late))
print("each its own", converted(20, "-fps_mode", "vfr", "-enc_time_base", "demux"))
assert seen(film(20)) == (120, 2.0)
assert converted(0) == converted(10) == (120, 2.0)
assert converted(20) == (121, 2.033), converted(20)
assert converted(20, "-fps_mode", "vfr", "-enc_time_base", "demux") == (120, 2.0)
PYTHON
