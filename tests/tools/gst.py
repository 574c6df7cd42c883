"""What GStreamer makes of a recording, in the manner of observe.py; for the system's Python.

Sound is put one buffer behind the other, as wavenc and every other writer of a file does.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

WINDOW = 3.0
# No step takes longer, however busy the machine is.
PATIENCE = 60 * Gst.SECOND
# A sink that is told of a hole waits for no picture.
HOLE = Gst.SECOND
PICTURE = "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=160,height=90,pixel-aspect-ratio=1/1"
SOUND = "audioconvert ! audioresample ! audio/x-raw,format=F32LE,channels=1,rate=16000"


class Player:
    """Decodes a file into sinks that hand out buffers."""

    def __init__(self, file):
        self.pipeline = Gst.parse_launch(f'filesrc location="{file}" ! matroskademux name=demux')
        self.demux = self.pipeline.get_by_name("demux")
        self.sinks, self.lacks = {}, None
        self.demux.connect("pad-added", self.plug)
        self.bus = self.pipeline.get_bus()
        self.state(Gst.State.PAUSED)

    def plug(self, demux, pad):
        caps = pad.get_current_caps() or pad.query_caps()
        kind = "video" if caps.get_structure(0).get_name().startswith("video/") else "audio"
        factories = Gst.ElementFactory.list_get_elements(Gst.ELEMENT_FACTORY_TYPE_DECODER, Gst.Rank.MARGINAL)
        able = Gst.ElementFactory.list_filter(factories, caps, Gst.PadDirection.SINK, False)
        parsers = Gst.ElementFactory.list_get_elements(Gst.ELEMENT_FACTORY_TYPE_PARSER, Gst.Rank.MARGINAL)
        parsers = Gst.ElementFactory.list_filter(parsers, caps, Gst.PadDirection.SINK, False)
        if not able:
            self.lacks = f"no decoder for {caps.get_structure(0).get_name()}"
            bin = Gst.parse_bin_from_description("fakesink async=false", True)
        else:
            best = max(able, key=lambda factory: factory.get_rank()).get_name()
            parser = f"{max(parsers, key=lambda f: f.get_rank()).get_name()} ! " if parsers else ""
            form = PICTURE if kind == "video" else SOUND
            bin = Gst.parse_bin_from_description(
                f"queue max-size-time=0 max-size-buffers=0 max-size-bytes=0 ! {parser}{best} ! {form} ! "
                f"appsink name={kind} sync=false max-buffers=0", True)
            self.sinks[kind] = bin.get_by_name(kind)
            if kind == "video":
                good, *rate = caps.get_structure(0).get_fraction("framerate")
                self.fps = rate[0] / rate[1] if good and rate[0] else None
        self.pipeline.add(bin)
        bin.sync_state_with_parent()
        pad.link(bin.get_static_pad("sink"))

    def state(self, state):
        self.pipeline.set_state(state)
        self.settle()

    def settle(self):
        message, looks = None, 0
        while message is None and not self.lacks and looks < 600:
            looks += 1
            message = self.bus.timed_pop_filtered(PATIENCE // 600, Gst.MessageType.ASYNC_DONE | Gst.MessageType.ERROR)
        if self.lacks:
            return
        if message is None or message.type == Gst.MessageType.ERROR:
            raise RuntimeError("no preroll" if message is None else str(message.parse_error()))

    def seek(self, start, stop=None):
        kind = Gst.SeekType.NONE if stop is None else Gst.SeekType.SET
        flags = Gst.SeekFlags.FLUSH | Gst.SeekFlags.ACCURATE
        stop = 0 if stop is None else int(stop * Gst.SECOND)
        self.pipeline.seek(1.0, Gst.Format.TIME, flags, Gst.SeekType.SET, int(start * Gst.SECOND), kind, stop)
        self.settle()

    def shown(self):
        """The picture where it stands; in a hole, where there is none, the one behind it."""
        sink = self.sinks["video"]
        if preroll := sink.emit("try-pull-preroll", HOLE):
            return contents(preroll)
        self.pipeline.set_state(Gst.State.PLAYING)
        behind = contents(sink.emit("try-pull-sample", PATIENCE))
        self.pipeline.set_state(Gst.State.PAUSED)
        return behind

    def buffers(self, kind):
        """(time, bytes) of all that is left of a kind."""
        sink = self.sinks[kind]
        while sample := sink.emit("try-pull-sample", PATIENCE):
            yield contents(sample)
        if not sink.get_property("eos"):
            raise RuntimeError(f"{kind}: nothing more, and no end")

    def duration(self):
        return self.pipeline.query_duration(Gst.Format.TIME)[1] / Gst.SECOND

    def close(self):
        self.pipeline.set_state(Gst.State.NULL)


def contents(sample):
    buffer = sample.get_buffer()
    return buffer.pts / Gst.SECOND, buffer.extract_dup(0, buffer.get_size())


def played(player):
    """All that is left, as bytes: pictures with their times, sound in one piece with its first time."""
    player.pipeline.set_state(Gst.State.PLAYING)
    sound = list(player.buffers("audio")) if "audio" in player.sinks else []
    pictures = list(player.buffers("video")) if "video" in player.sinks else []
    start = sound[0][0] if sound else 0.0
    player.pipeline.set_state(Gst.State.PAUSED)
    return pictures, start, b"".join(data for _, data in sound)


def main():
    """Numpy is in the virtual environment alone, whose packages fit the system's Python."""
    import numpy as np
    import scene

    file, *rest = sys.argv[1:]
    sampled = rest[:1] == ["--"]
    targets = [float(word) for word in rest[sampled:]]
    grey = lambda data: np.frombuffer(data, np.uint8)[: 160 * 90].reshape(90, 160)
    Gst.init(None)
    player = Player(file)
    if player.lacks:
        return {"lacks": player.lacks}
    seen = {"flashes": [], "beeps": [], "seeks": []}

    def take(first):
        pictures, start, sound = played(player)
        samples = np.frombuffer(sound, np.float32)
        seen["flashes"] += scene.flashes((time, scene.flash(grey(data))) for time, data in pictures)
        seen["beeps"] += scene.beeps(samples, start=start if first is None else first)
        return len(pictures), len(samples) / scene.RATE

    if not sampled:
        frames, seen["sound"] = take(0.0)
    if "video" in player.sinks:
        fps = player.fps
        seen |= {"fps": fps, "count": fps and fps * player.duration()} | ({} if sampled else {"frames": frames})
    for target in targets:
        player.seek(target, target + WINDOW if sampled else None)
        if "video" in player.sinks:
            time, data = player.shown()
            seen["seeks"].append([target, time, scene.phase(grey(data))])
        if sampled:
            take(None)
    player.close()
    return seen


if __name__ == "__main__":
    print(json.dumps(main()))
