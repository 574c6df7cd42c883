"""What the tests' films show, and how it is found again in what a tool makes of them.

Each second a white flash covers the upper part of the picture for 0.1 s, with a beep. A white bar below
moves from left to right in PHASE seconds: its place says which moment of the source a picture is.
"""

import numpy as np

PHASE = 10.0
# Of the picture's height: the flash ends above, the bar begins below.
FLASH_TO, BAR_FROM = 0.6, 0.85
# Of the picture's width.
BAR = 1 / 16
RATE = 16_000


def flash(grey):
    """How white the upper part is, 0 to 1."""
    return float(grey[: int(len(grey) * FLASH_TO) : 4, ::4].mean()) / 255


def phase(grey):
    """Seconds since the bar was at the left, or None where there is no bar."""
    row = grey[int(len(grey) * BAR_FROM) :].mean(axis=0)
    lit = np.flatnonzero(row > 128)
    if not len(lit):
        return None
    middle = (lit.mean() + 0.5) / len(row)
    return float(np.clip((middle - BAR / 2) / (1 - BAR), 0, 1) * PHASE)


def flashes(pictures):
    """When pictures, as (time, flash), turn white, in seconds."""
    onsets, last = [], -1.0
    for time, level in pictures:
        if level > 0.5:
            if time - last > 0.25:
                onsets.append(time)
            last = time
    return onsets


def beeps(samples, rate=RATE, start=0.0):
    """When sound begins in samples of -1 to 1, whose first is at start, in seconds."""
    window = rate // 1000
    whole = len(samples) // window * window
    peaks = np.abs(samples[:whole]).reshape(-1, window).max(axis=1) if whole else np.zeros(0)
    onsets, last = [], -1000
    for ms in np.flatnonzero(peaks > 0.2):
        if ms - last > 250:
            onsets.append(start + float(ms) / 1000)
        last = ms
    return onsets
