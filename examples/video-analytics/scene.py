"""A seeded scene whose contents are known: coloured shapes that move over textured, noisy ground.

Writes the scene as an MP4 (encoded by ffmpeg) and the truth as JSON, so that what the functions see can be checked
exactly. The ground has little colour and much texture; that gives frames and fragment the sizes that real footage has.

    python scene.py --seed 7 fragment.mp4 truth.json
"""

import argparse
import json
import math
import subprocess
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 1920, 1080
FRAMES, FRAMES_PER_SECOND = 61, 30
BITS_PER_SECOND = 6_400_000

# Positions are told as cells of a grid, named by column and row.
COLUMNS, ROWS = 8, 4
# A shape's centre keeps this many pixels away from the borders of its cell, so that the truth is never a close call.
CLEARANCE = 12

# Names and their values in blue, green, red.
COLOURS = {
    "red": (40, 30, 225),
    "yellow": (30, 215, 230),
    "green": (45, 190, 35),
    "cyan": (225, 210, 30),
    "blue": (225, 60, 30),
    "magenta": (215, 35, 220),
}
SHAPES = ("circle", "square", "triangle", "star")


class Mover:
    """One shape with a row of the grid to itself, in which it drifts, turns, comes and goes."""

    def __init__(self, random, row):
        self.row = row
        self.shape = SHAPES[random.integers(len(SHAPES))]
        self.colour = list(COLOURS)[random.integers(len(COLOURS))]
        self.radius = int(random.integers(64, 92))
        self.start = random.uniform(0.1, 0.9) * WIDTH
        self.speed = random.choice([-1, 1]) * random.uniform(6, 18)
        self.wave = random.uniform(0.05, 0.2)
        self.turn = random.uniform(-0.05, 0.05)
        self.phase = random.uniform(0, 2 * math.pi)
        first = int(random.integers(-10, 15))
        self.seen = range(first, first + int(random.integers(35, 70)))

    def centre(self, frame):
        """Whole pixels; bounces off the sides, stays within the row, keeps clear of cell borders."""
        margin = self.radius + 8
        span = WIDTH - 2 * margin
        way = (self.start - margin + self.speed * frame) % (2 * span)
        x = margin + (way if way <= span else 2 * span - way)
        row_height = HEIGHT / ROWS
        y = (self.row + 0.5) * row_height + math.sin(self.phase + self.wave * frame) * (row_height / 2 - margin)
        return keep_clear(x, WIDTH / COLUMNS), round(y)

    def outline(self, frame):
        """The shape's corners; a circle has many."""
        turn = self.phase + self.turn * frame
        if self.shape == "star":
            angles = turn + np.arange(10) * math.pi / 5
            radii = np.where(np.arange(10) % 2 == 0, self.radius, self.radius * 0.42)
        else:
            corners = {"circle": 96, "square": 4, "triangle": 3}[self.shape]
            angles = turn + np.arange(corners) * 2 * math.pi / corners
            radii = np.full(corners, float(self.radius))
        points = np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1) + self.centre(frame)
        return points.round().astype(np.int32)


def keep_clear(position, cell):
    """Moves a position out of the strip around the nearest border between two cells."""
    border = round(position / cell) * cell
    offset = position - border
    if abs(offset) < CLEARANCE:
        position = border + math.copysign(CLEARANCE, offset)
    return round(position)


def ground(random):
    """Still texture of little colour: soft hills, streaks and grain. Larger than a frame, for the camera's drift."""
    height, width = HEIGHT + 64, WIDTH + 64
    hills = cv2.resize(random.uniform(70, 150, (18, 32)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    streaks = cv2.GaussianBlur(random.normal(0, 46, (height, width)).astype(np.float32), (0, 0), sigmaX=5, sigmaY=1.2)
    grain = cv2.GaussianBlur(random.normal(0, 19, (height, width)).astype(np.float32), (0, 0), 0.7)
    light = hills + streaks + grain
    tint = cv2.resize(random.uniform(-7, 7, (9, 16, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return light[:, :, None] + tint


class Scene:
    """Everything that happens for one seed."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.movers = [Mover(random, row) for row in range(ROWS)]
        self.ground = ground(random)
        self.noise = [random.normal(0, 1.5, (HEIGHT, WIDTH, 1)).astype(np.float32) for _ in range(4)]

    def truth(self, frame):
        """What is to be seen in one frame, in the order and the words of an answer of recog."""
        objects = []
        for mover in self.movers:
            if frame in mover.seen:
                x, y = mover.centre(frame)
                column, row = int(x * COLUMNS // WIDTH), int(y * ROWS // HEIGHT)
                objects.append(f"{mover.colour} {mover.shape} at {column},{row}")
        return sorted(objects)

    def frame(self, number):
        """The picture, as rows of blue, green, red."""
        dx, dy = 32 + round(20 * math.sin(number / 19)), 32 + round(8 * math.cos(number / 23))
        picture = self.ground[dy : dy + HEIGHT, dx : dx + WIDTH] + self.noise[number % len(self.noise)]
        picture = np.clip(picture, 0, 255).astype(np.uint8)
        for mover in self.movers:
            if number in mover.seen:
                cv2.fillPoly(picture, [mover.outline(number)], COLOURS[mover.colour], lineType=cv2.LINE_AA)
        return picture


def encode(scene, path, frames=FRAMES):
    """Encodes the scene's frames as H.264 in MP4."""
    encoder = subprocess.Popen(
        ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24"]
        + ["-s", f"{WIDTH}x{HEIGHT}", "-r", str(FRAMES_PER_SECOND), "-i", "-"]
        + ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-b:v", str(BITS_PER_SECOND)]
        + ["-movflags", "+faststart", "-f", "mp4", str(path)],
        stdin=subprocess.PIPE,
    )
    with encoder.stdin as pipe:
        for number in range(frames):
            pipe.write(scene.frame(number).tobytes())
    if encoder.wait() != 0:
        raise SystemExit(f"ffmpeg ended with status {encoder.returncode}")


def write(seed, video, truth):
    """Writes the MP4 and the truth: a list with the sorted labels of each frame."""
    scene = Scene(seed)
    encode(scene, video)
    Path(truth).write_text(json.dumps([scene.truth(number) for number in range(FRAMES)], indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("video")
    parser.add_argument("truth")
    arguments = parser.parse_args()
    write(arguments.seed, arguments.video, arguments.truth)
