"""What recog sees with: finds shapes of strong colour in a picture. OpenCV only."""

import cv2
import numpy as np

COLUMNS, ROWS = 8, 4

# OpenCV's hues run from 0 to 180.
HUES = {"red": 0, "yellow": 28, "green": 58, "cyan": 92, "blue": 114, "magenta": 149}


def labels(picture):
    """Names every object as "colour shape at column,row", sorted; the picture is an array in blue, green, red."""
    height, width = picture.shape[:2]
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    strong = cv2.inRange(hsv, (0, 130, 110), (180, 255, 255))
    strong = cv2.morphologyEx(strong, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    strong = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    outlines, _ = cv2.findContours(strong, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)

    found = []
    for outline in outlines:
        if cv2.contourArea(outline) < 3000:
            continue
        moments = cv2.moments(outline)
        x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        column, row = int(x * COLUMNS // width), int(y * ROWS // height)
        found.append(f"{colour(hsv, outline)} {shape(outline)} at {column},{row}")
    return sorted(found)


def shape(outline):
    """Tells shapes apart by how much of their hull they fill, and how much of a circle their hull fills."""
    hull = cv2.contourArea(cv2.convexHull(outline))
    if cv2.contourArea(outline) / hull < 0.8:
        return "star"
    _, radius = cv2.minEnclosingCircle(outline)
    filled = hull / (np.pi * radius * radius)  # 1 for a circle, 0.64 for a square, 0.41 for a triangle
    return "circle" if filled > 0.8 else "square" if filled > 0.52 else "triangle"


def colour(hsv, outline):
    """The name of the nearest hue; hues are angles, so they are averaged as such."""
    inside = np.zeros(hsv.shape[:2], np.uint8)
    cv2.drawContours(inside, [outline], -1, 255, cv2.FILLED)
    angles = hsv[:, :, 0][inside == 255].astype(np.float64) * (np.pi / 90)
    hue = np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()) * (90 / np.pi)
    return min(HUES, key=lambda name: abs((hue - HUES[name] + 90) % 180 - 90))
