// Says what a browser's <video> shows and plays of a recording, in the manner of observe.py. Run in a page of
// the server; window.look(url, targets, sampled) promises it.
(() => {
  const [WINDOW, ROUND] = [3, 10];
  /** Of what is drawn to be looked at. */
  const [WIDTH, HEIGHT] = [160, 32];

  /** Of sound that is looked at in one go, in samples. */
  const PIECE = 512;

  const seconds = (ms) => new Promise((done) => setTimeout(done, ms * 1000));
  const event = (target, name) => new Promise((done, failed) => {
    target.addEventListener(name, done, { once: true });
    target.addEventListener("error", () => failed(new Error(target.error?.message ?? "no reason")), { once: true });
    setTimeout(() => failed(new Error(`no ${name}`)), 30_000);
  });

  /** Upper part above, bar below: how white the flash is, and where the bar is. */
  function read(video, context) {
    const [width, height] = [video.videoWidth, video.videoHeight];
    context.drawImage(video, 0, height * 0.1, width, height * 0.4, 0, 0, WIDTH, HEIGHT / 2);
    context.drawImage(video, 0, height * 0.85, width, height * 0.1, 0, HEIGHT / 2, WIDTH, HEIGHT / 2);
    const { data } = context.getImageData(0, 0, WIDTH, HEIGHT);
    const level = (x, y) => data[(y * WIDTH + x) * 4 + 1];
    const flash = level(WIDTH / 2, HEIGHT / 4) / 255;
    const lit = [...Array(WIDTH).keys()].filter((x) => level(x, HEIGHT * 3 / 4) > 128);
    if (!lit.length) return { flash, phase: null };
    const middle = (lit.reduce((sum, x) => sum + x, 0) / lit.length + 0.5) / WIDTH;
    return { flash, phase: Math.min(Math.max((middle - 1 / 32) / (1 - 1 / 16), 0), 1) * ROUND };
  }

  /** What a clock of (x, y) says at x, by its points that are near: pictures may be late, but none is early. */
  function readOff(clock, x) {
    const near = clock.filter(([at]) => Math.abs(at - x) < 0.4);
    const shifts = (near.length ? near : clock).map(([at, value]) => value - at).sort((a, b) => a - b);
    return x + shifts[Math.floor(shifts.length * 0.75)];
  }

  function onsets(times, rest) {
    return times.filter((time, n) => n === 0 || time - times[n - 1] > rest);
  }

  /** Plays from where it stands: what was seen and heard, by the film's time. */
  async function play(video, listener, context, audio, length) {
    // Film's time by the page's, and the page's by the context's: both clocks may stumble.
    const [white, loud, clock, heard] = [[], [], [], []];
    listener.onaudioprocess = ({ playbackTime, inputBuffer }) => {
      const at = inputBuffer.getChannelData(0).findIndex((sample) => Math.abs(sample) > 0.05);
      if (at >= 0) loud.push(playbackTime + at / audio.sampleRate);
    };
    let playing = true;
    const each = (now, { mediaTime, expectedDisplayTime }) => {
      if (!playing) return;
      clock.push([expectedDisplayTime / 1000, mediaTime]);
      if (read(video, context).flash > 0.5) white.push(mediaTime);
      video.requestVideoFrameCallback(each);
    };
    if (video.videoWidth) video.requestVideoFrameCallback(each);
    // Where there is no picture, the element's own time is the film's.
    else (async () => {
      for (; playing; await seconds(0.02)) clock.push([performance.now() / 1000, video.currentTime]);
    })();
    (async () => {
      for (; playing; await seconds(0.02)) {
        const { contextTime, performanceTime } = audio.getOutputTimestamp();
        heard.push([contextTime, performanceTime / 1000]);
      }
    })();
    const ended = event(video, "ended").catch(() => {});
    await video.play();
    await Promise.race([ended, seconds(length)]);
    playing = false;
    video.pause();
    const beeps = onsets(loud, 0.25).map((time) => readOff(clock, readOff(heard, time)));
    return { flashes: onsets(white, 0.25), beeps };
  }

  async function sought(video, context, target) {
    const shown = new Promise((done) => video.requestVideoFrameCallback((_, { mediaTime }) => done(mediaTime)));
    video.currentTime = target;
    await event(video, "seeked");
    const at = await Promise.race([shown, seconds(5).then(() => null)]);
    return [target, at, read(video, context).phase];
  }

  window.look = async (url, targets, sampled) => {
    const audio = window.audio ??= new AudioContext();
    await audio.resume();
    const video = document.body.appendChild(document.createElement("video"));
    const context = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d", { willReadFrequently: true });
    try {
      video.preload = "auto";
      video.src = url;
      await event(video, "loadeddata");
      if (!sampled && video.readyState < 4) await event(video, "canplaythrough");
      // Not a worklet: the server's policy lets a page load no script but its own.
      const [listener, silent] = [audio.createScriptProcessor(PIECE, 1, 1), audio.createGain()];
      silent.gain.value = 0;
      audio.createMediaElementSource(video).connect(listener).connect(silent).connect(audio.destination);
      const seen = { flashes: [], beeps: [], seeks: [] };
      const take = async (length) => {
        const { flashes, beeps } = await play(video, listener, context, audio, length);
        seen.flashes.push(...flashes);
        seen.beeps.push(...beeps);
      };
      if (!sampled) {
        await take(video.duration + 5);
        if (video.videoWidth) seen.frames = video.getVideoPlaybackQuality().totalVideoFrames;
      }
      for (const target of targets) {
        if (video.videoWidth) seen.seeks.push(await sought(video, context, target));
        if (sampled) await take(WINDOW);
      }
      return seen;
    } catch (error) {
      return { lacks: String(error) };
    } finally {
      video.removeAttribute("src");
      video.load();
      video.remove();
    }
  };
})();
