"""Says what one tool sees in a recording, as JSON; whether that is right is decided elsewhere.

observe.py TOOL FILE FROM…      A whole file; seeks to each FROM (seconds).
observe.py TOOL FILE -- FROM…   A long one: only what is in WINDOW seconds behind each FROM.

{"frames": pictures read, "fps", "count": as the header has it, "sound": seconds of it read,
 "seeks": [[wanted, time, phase]], "flashes": [seconds], "beeps": [seconds], "lacks": why it can't}
What a tool doesn't say is null.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import scene

HERE = Path(__file__).resolve().parent
QUIET = ["-nostdin", "-v", "error", "-y"]
WINDOW = 3.0
# No program needs longer for one file, in seconds; mpv waits for ever at a hole of five seconds in the sound.
PATIENCE = 120
# A picture that begins so shortly before a time is the one that shows it.
NEAR = 0.02


class Lacks(Exception):
    """The tool can't read this codec or has no such track."""


def run(*command, **environment):
    words = [str(word) for word in command]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')[-600:]}")
    return done


def opencv(file, targets, sampled):
    import cv2

    capture = cv2.VideoCapture(str(file))
    if not capture.isOpened():
        raise Lacks("it opens no such file")
    seen = {"fps": capture.get(cv2.CAP_PROP_FPS), "count": capture.get(cv2.CAP_PROP_FRAME_COUNT)}
    if not capture.read()[0]:
        raise Lacks("it decodes no picture")
    if not sampled:
        frames = 1
        while capture.grab():
            frames += 1
        seen["frames"] = frames
    seeks = []
    for target in targets:
        capture.set(cv2.CAP_PROP_POS_MSEC, target * 1000)
        time, picture = None, None
        for _ in range(400):
            good, next_picture = capture.read()
            if not good:
                break
            time, picture = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, next_picture
            if time >= target - NEAR:
                break
        seeks.append([target, time, None if picture is None else scene.phase(picture[:, :, 1])])
    return seen | {"seeks": seeks}


def grey_of(frame):
    """The luma plane of a PyAV picture."""
    plane = frame.reformat(160, 90, "gray").planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, :160]


def decoded(file, kind, start=None, stop=None):
    """PyAV's frames of a kind from a time on."""
    import av

    with av.open(str(file)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        if not streams:
            return
        if start is not None:
            container.seek(int(start * 1e6))
        for frame in container.decode(streams[0]):
            if stop is not None and frame.time > stop:
                return
            if start is None or frame.time >= start - NEAR:
                yield frame


def listened(frames, placed):
    """Samples, and the first one's time: each at its time, or one after the other as most tools do."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=scene.RATE)
    pieces, start, length = [], None, 0
    for frame in frames:
        start = frame.time if start is None else start
        early = 0
        if placed:
            hole = round((frame.time - start) * scene.RATE) - length
            if hole > scene.RATE // 100:
                pieces.append(np.zeros(hole, np.float32))
                length += hole
            # What a frame has of the time of the one before it, if that is more than a player would let pass.
            early = -hole if hole < -scene.RATE // 100 else 0
        for piece in resampler.resample(frame):
            samples = piece.to_ndarray()[0]
            pieces.append(samples[early:])
            early -= min(early, len(samples))
            length += len(pieces[-1])
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), start


def measured(file, placed=True, start=None, stop=None):
    """Flashes, beeps and pictures of a file by PyAV; without placing, sound begins at 0."""
    pictures = []
    for frame in decoded(file, "video", start, stop):
        grey = grey_of(frame)
        pictures.append((frame.time, scene.flash(grey), scene.phase(grey)))
    samples, first = listened(decoded(file, "audio", start, stop), placed)
    first = first if placed or start is not None else 0.0
    return {
        "flashes": scene.flashes((time, level) for time, level, _ in pictures),
        "beeps": scene.beeps(samples, start=first or 0.0),
        "pictures": [(time, phase) for time, _, phase in pictures],
        "frames": len(pictures),
        "sound": len(samples) / scene.RATE,
    }


def joined(parts):
    parts = list(parts)
    return {key: [x for part in parts for x in part[key]] for key in ("flashes", "beeps", "pictures")}


def reference(file, targets, sampled):
    """What is in the file, each frame at the time it says."""
    if sampled:
        return joined(measured(file, True, t - WINDOW, t + WINDOW) for t in targets)
    return measured(file)


def pyav(file, targets, sampled):
    import av

    seen = {}
    with av.open(str(file)) as container:
        duration = container.duration / 1e6
        if container.streams.video:
            rate = float(container.streams.video[0].average_rate or 0)
            seen |= {"fps": rate, "count": rate * duration}
    if sampled:
        seen |= joined(measured(file, False, t, t + WINDOW) for t in targets)
    else:
        seen |= measured(file, False)
    seeks = []
    if "fps" in seen:
        for target in targets:
            frame = next(decoded(file, "video", target), None)
            seeks.append([target, frame and frame.time, frame and scene.phase(grey_of(frame))])
    return seen | {"seeks": seeks}


def decord(file, targets, sampled):
    from decord import AudioReader, DECORDError, VideoReader

    first = next(decoded(file, "video"), None)
    if first is None:
        sound = AudioReader(str(file), sample_rate=scene.RATE, mono=True)[:].asnumpy()[0]
        return {"beeps": scene.beeps(sound), "sound": len(sound) / scene.RATE}
    try:
        reader = VideoReader(str(file))
    except DECORDError as error:
        raise Lacks(str(error).splitlines()[0]) from error
    seen = {"fps": reader.get_avg_fps(), "count": len(reader)}
    # It counts from the first picture, and says nowhere when that is: sound may begin before it.
    starts = np.array(reader.get_frame_timestamp(list(range(len(reader)))))[:, 0] + first.time
    show = lambda index: reader[int(index)].asnumpy()[:, :, 1]
    seeks = []
    for target in targets:
        index = min(np.searchsorted(starts, target - NEAR), len(reader) - 1)
        seeks.append([target, float(starts[index]), scene.phase(show(index))])
    wanted = range(len(reader))
    if sampled:
        wanted = [i for i in wanted if any(t <= starts[i] <= t + WINDOW for t in targets)]
    levels = [(float(starts[index]), scene.flash(show(index))) for index in wanted]
    seen |= {"seeks": seeks, "flashes": scene.flashes(levels)}
    if not sampled:
        seen["frames"] = len(levels)
    # Its reader of sound decodes all of a file before it gives anything, and takes a minute for an hour.
    if sampled or next(decoded(file, "audio"), None) is None:
        return seen
    sound = AudioReader(str(file), sample_rate=scene.RATE, mono=True)[:].asnumpy()[0]
    return seen | {"beeps": scene.beeps(sound), "sound": len(sound) / scene.RATE}


def shifted(seen, by):
    return seen | {key: [time + by for time in seen[key]] for key in ("flashes", "beeps")}


# As hooks/to_mp4.sh converts for ffmpeg 5.1: each picture at its own time.
KEPT = ["-vsync", "vfr", "-enc_time_base:v", "1:1000", "-preset", "ultrafast"]


def mp4(file, targets, sampled):
    """What hooks/to_mp4.sh makes; rate and count are those of the plain command, which puts pictures on a grid."""
    with tempfile.TemporaryDirectory() as folder:
        if sampled:
            output, parts = Path(folder) / "part.mp4", []
            for target in targets:
                run("ffmpeg", *QUIET, "-ss", target, "-t", WINDOW, "-i", file, *KEPT, output)
                parts.append(shifted(measured(output), target))
            seen = joined(parts)
        else:
            plain = Path(folder) / "plain.mp4"
            run("ffmpeg", *QUIET, "-i", file, "-preset", "ultrafast", plain)
            run(HERE / "../../hooks/to_mp4.sh", "film", file, MP4_DIR=folder)
            seen = measured(Path(folder) / f"{file.stem}.mp4")
            if seen["frames"]:
                seen["fps"], seen["count"] = rate_and_count_of(plain)
            else:
                seen["frames"] = None
    has_picture = next(decoded(file, "video"), None) is not None
    return seen | {"seeks": [ffmpeg_seek(file, target) for target in targets] if has_picture else []}


def rate_and_count_of(file):
    import av

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        return float(stream.average_rate), stream.frames


def ffmpeg_seek(file, target):
    done = run("ffmpeg", "-nostdin", "-hide_banner", "-ss", target, "-copyts", "-i", file, "-map", "0:v",
               "-frames:v", 1, "-vf", "scale=160:90,format=gray,showinfo", "-f", "rawvideo", "-")
    time = re.search(rb"pts_time:\s*([0-9.]+)", done.stderr)
    if not time or len(done.stdout) < 160 * 90:
        return [target, None, None]
    return [target, float(time[1]), scene.phase(np.frombuffer(done.stdout, np.uint8)[: 160 * 90].reshape(90, 160))]


def wav(file, targets, sampled):
    """As Whisper loads its input."""
    if next(decoded(file, "audio"), None) is None:
        raise Lacks("no sound in the file")
    done = run("ffmpeg", "-nostdin", "-v", "error", "-threads", 0, "-i", file, "-f", "s16le", "-ac", 1,
               "-acodec", "pcm_s16le", "-ar", 16000, "-")
    samples = np.frombuffer(done.stdout, np.int16).astype(np.float32) / 32768
    part = lambda t: samples[round(t * scene.RATE) : round((t + WINDOW) * scene.RATE)]
    beeps = [beep for t in targets for beep in scene.beeps(part(t), start=t)] if sampled else scene.beeps(samples)
    return {"beeps": beeps, "sound": len(samples) / scene.RATE}


def mpv(file, targets, sampled):
    """Its encoding mode writes what it would have shown, when it would have shown it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.mkv"

        def play(*options):
            has = {stream for stream in ("video", "audio") if next(decoded(file, stream), None) is not None}
            codecs = ["--ovc=ffv1", "--vf=scale=160:90"] * ("video" in has) + ["--oac=pcm_s16le"] * ("audio" in has)
            say = "--term-playing-msg=FPS=${container-fps:} COUNT=${estimated-frame-count:}."
            status = "--term-status-msg=AT=${=time-pos:}."
            return run("mpv", "--no-config", file, f"--o={output}", "--of=matroska", *codecs, say, status, *options)

        if sampled:
            parts = []
            for target in targets:
                said = play(f"--start={target}", f"--length={WINDOW}")
                parts.append(shifted(measured(output), target))
            seen = joined(parts)
        else:
            said = play()
            seen = measured(output)
        text = (said.stdout + said.stderr).decode(errors="replace")
        for key, word in (("fps", "FPS"), ("count", "COUNT")):
            found = re.search(word + r"=([0-9.]*[0-9])", text)
            seen[key] = float(found[1]) if found else None
        seeks = []
        if seen["flashes"]:
            for target in targets:
                play(f"--start={target}", "--frames=1")
                pictures = measured(output)["pictures"]
                seeks.append([target, None, pictures[0][1] if pictures else None])
        return seen | {"seeks": seeks}


TOOLS = {tool.__name__: tool for tool in (reference, opencv, pyav, decord, mp4, wav, mpv)}


def main():
    tool, file, *rest = sys.argv[1:]
    sampled = rest[:1] == ["--"]
    targets = [float(word) for word in rest[sampled:]]
    try:
        seen = TOOLS[tool](Path(file), targets, sampled)
    except Lacks as lacks:
        seen = {"lacks": str(lacks)}
    if tool != "reference":
        seen.pop("pictures", None)
    print(json.dumps(seen))


main()
