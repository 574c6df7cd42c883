#!/usr/bin/env bash
# A hole in the sound of a WebM is gone once it is decoded: all sound behind it comes early by its length.
#
# Versions   ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0), PyAV 18.1.0
# One guess  a decoder that is given packets at 2.98 s and at 6.00 s, and nothing between, writes 3 s of silence
#            (the file says when each packet sounds, and players keep that).
# Seen       ffmpeg to WAV, as speech recognisers call it, gives 7 s of a file of 10 s, without a word on
#            standard error; with -af aresample=async=1 it gives 10 s. PyAV's frames keep their times, so
#            whoever joins them without a look at pts makes the same 7 s.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install imageio-ffmpeg==0.6.0 av==18.1.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess, sys, wave
import av, imageio_ffmpeg

folder = sys.argv[1]

def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == "", done.stderr

def seconds(file):
    with wave.open(file) as sound:
        return sound.getnframes() / sound.getframerate()

whole, holed = f"{folder}/whole.webm", f"{folder}/holed.webm"
ffmpeg("-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000", "-t", "10", "-c:a", "libopus", whole)
# Packets 150 to 299 of 20 ms are left out; all others keep their times.
ffmpeg("-i", whole, "-t", "60", "-c", "copy", "-bsf:a", r"noise=drop=between(n\,150\,299)", holed)
ffmpeg("-i", holed, "-t", "60", "-ac", "1", "-ar", "16000", f"{folder}/plain.wav")
ffmpeg("-i", holed, "-t", "60", "-af", "aresample=async=1", "-ac", "1", "-ar", "16000", f"{folder}/async.wav")
with av.open(holed) as container:
    frames = list(container.decode(audio=0))
length = lambda frame: frame.samples / frame.sample_rate
joined = sum(map(length, frames))
shown = frames[-1].time + length(frames[-1])

print("ffmpeg", imageio_ffmpeg.get_ffmpeg_version(), "PyAV", av.__version__)
seen = {
    "ffmpeg -ac 1 -ar 16000": seconds(f"{folder}/plain.wav"),
    "… with -af aresample=async=1": seconds(f"{folder}/async.wav"),
    "PyAV, frames joined": joined,
    "PyAV, by the last frame's time": shown,
}
for name, value in seen.items():
    print(f"{value:6.2f} s  {name}")
expected = [7.0, 10.0, 7.0, 10.0]
assert all(abs(a - b) < 0.05 for a, b in zip(seen.values(), expected)), seen
PYTHON
