#!/usr/bin/env bash
# decord's times of pictures count from the first picture, and its sound begins with the first sample: where one
# track begins later than the other, what it gives is out of step by that much.
#
# Versions   decord 0.6.0; ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0) makes the files; av 18.1.0 (PyAV) reads them, too
# One guess  `get_frame_timestamp` gives the file's times, as ffprobe and PyAV do: they are read from the packets.
# Seen       Of a WebM whose pictures begin 0.5 s after its sound the first picture is at 0.0 for decord and at 0.5
#            for PyAV. Sound of both files is the same, so that decord's pictures are 0.5 s early against it.
#            No option changes that, and nothing that it gives says when the track begins.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install decord==0.6.0 imageio-ffmpeg==0.6.0 av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess, sys
import av, decord, imageio_ffmpeg

folder = sys.argv[1]


def made(late):
    file = f"{folder}/{late}.webm"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y",
                    "-itsoffset", str(late), "-f", "lavfi", "-t", "3", "-i", "testsrc2=size=320x180:rate=20",
                    "-f", "lavfi", "-t", "4", "-i", "sine=frequency=440:sample_rate=48000",
                    "-map", "0", "-map", "1", "-c:v", "libvpx", "-deadline", "realtime", "-g", "20",
                    "-c:a", "libopus", file], check=True)
    return file


def seen(file):
    by_decord = decord.VideoReader(file).get_frame_timestamp(0)[0]
    with av.open(file) as container:
        by_pyav = next(container.decode(video=0)).time
    sound = decord.AudioReader(file, sample_rate=16000, mono=True)[:].asnumpy().shape[1] / 16000
    return round(float(by_decord), 2), round(by_pyav, 2), round(sound, 1)


print("decord", decord.__version__, "PyAV", av.__version__)
together, late = seen(made(0)), seen(made(0.5))
print("begin together: first picture at %.2f s by decord, %.2f by PyAV, %.1f s of sound" % together)
print("pictures 0.5 s late: first picture at %.2f s by decord, %.2f by PyAV, %.1f s of sound" % late)
assert together == (0.0, 0.0, 4.0), together
assert late == (0.0, 0.5, 4.0), late
PYTHON
