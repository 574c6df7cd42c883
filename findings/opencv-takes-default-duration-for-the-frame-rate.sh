#!/usr/bin/env bash
# OpenCV takes Matroska's DefaultDuration for the frame rate, counts frames by it, and can't seek by time.
#
# Versions   opencv-python-headless 5.0.0.93; ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0) makes the file
# One guess  DefaultDuration is a hint (RFC 9559 section 5.1.4.1.3: nanoseconds a frame), and each block has
#            a time of its own, so a reader of a camera with an uneven rate gets rate, count and seeks from those.
# Seen       60 pictures at 10 a second whose DefaultDuration is 2 ms, the shortest interval that such a camera
#            had: FPS 500, 3000 frames by count, and after a seek to 3 s nothing can be read. With the mean, 100 ms,
#            rate and count are right and the seek reads a picture.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install opencv-python-headless==5.0.0.93 imageio-ffmpeg==0.6.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess, sys
import cv2, imageio_ffmpeg

folder = sys.argv[1]
mean = f"{folder}/mean.webm"
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y",
                "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10", "-t", "6",
                "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "20", mean], check=True)
data = bytearray(open(mean, "rb").read())
at = data.index(bytes.fromhex("23e383"))
size = data[at + 3] & 0x7f
value = slice(at + 4, at + 4 + size)
assert int.from_bytes(data[value]) == 100_000_000
data[value] = (2_000_000).to_bytes(size)
shortest = f"{folder}/shortest.webm"
open(shortest, "wb").write(data)

def seen(file):
    video, pictures = cv2.VideoCapture(file), 0
    while video.read()[0]:
        pictures += 1
    video.set(cv2.CAP_PROP_POS_MSEC, 3000)
    return video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT), pictures, video.read()[0]

print("OpenCV", cv2.__version__)
print("DefaultDuration 100 ms: FPS %.0f, count %.0f, %d pictures read, read after a seek to 3 s: %s" % seen(mean))
print("DefaultDuration   2 ms: FPS %.0f, count %.0f, %d pictures read, read after a seek to 3 s: %s" % seen(shortest))
assert seen(mean) == (10, 60, 60, True), seen(mean)
assert seen(shortest) == (500, 3000, 60, False), seen(shortest)
PYTHON
