"""Streets drawn from a seed: flat faces in space, painted from far to near, each of a class.

Two uses: `scenes.sample_image`, a picture to compare graphs on, and `scenes.Scenes`, labelled pictures to train and to
measure on. The classes are Cityscapes', under Cityscapes' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hiresvit.data.dataset import CITYSCAPES, Colour

CLASSES = ("road", "sidewalk", "building", "pole", "vegetation", "terrain", "sky", "person", "car")
ROAD, SIDEWALK, BUILDING, POLE, VEGETATION, TERRAIN, SKY, PERSON, CAR = map(list(CITYSCAPES).index, CLASSES)
GROUND = 999.0  # how far away things are said to be that everything else stands on

Point = tuple[float, float, float]  # metres: right of the camera, above the ground, ahead

_SKY, _HAZE, _GLASS, _DARK = (92, 144, 202), (212, 220, 228), (58, 72, 88), (32, 33, 36)
_LAND, _PAVING, _KERB, _ROAD = (138, 146, 112), (170, 165, 158), (200, 196, 190), (92, 93, 97)
_GRASS = (112, 134, 84)
_STEEL, _WHITE, _RED = (84, 88, 92), (236, 234, 222), (206, 32, 28)
_WALLS = ((178, 118, 92), (204, 180, 144), (156, 146, 140), (216, 206, 190), (142, 88, 74), (176, 168, 132))
_PAINTS = ((170, 34, 32), (36, 62, 116), (206, 207, 210), (52, 54, 60), (198, 150, 40), (60, 104, 92))

# Things that face the camera: left, right, low, high in metres, and which of the thing's colours.
_CAR = (  # paint, tyres and bumper, plate, lamps
    (-0.86, -0.58, 0, 0.4, 1), (0.58, 0.86, 0, 0.4, 1), (-0.9, 0.9, 0.3, 0.85, 0), (-0.9, 0.9, 0.3, 0.45, 1),
    (-0.25, 0.25, 0.48, 0.6, 2), (-0.87, -0.53, 0.62, 0.76, 3), (0.53, 0.87, 0.62, 0.76, 3),
)  # fmt: skip
_PERSON = (  # trousers, coat
    (-0.2, -0.04, 0, 0.85, 0), (0.05, 0.19, 0.03, 0.85, 0),
    (-0.26, 0.26, 0.78, 1.41, 1), (-0.18, 0.18, 0.8, 1.47, 1),
)  # fmt: skip
_LAMP = ((-0.07, 0.07, 0, 6.5, 0), (0, -1.3, 6.4, 6.52, 0), (-1, -1.6, 6.3, 6.5, 1))  # steel, white
_SIGNAL = ((-0.05, 0.05, 0, 3.2, 0), (-0.2, 0.2, 2.5, 3.6, 1), (-0.11, 0.11, 3.3, 3.5, 2))  # steel, dark, red


class _Face(NamedTuple):
    away: float
    kind: int | None  # None: a shadow, which leaves its ground what it is
    points: Sequence[Point]
    colour: Colour
    light: float


@dataclass(frozen=True)
class Camera:
    """Where the street is seen from: metres above the ground and right of its middle; the rest in picture sides.

    ``focal`` is a share of the longer side, ``horizon`` of the height, ``middle`` (the vanishing point) of the width.
    """

    eye: float = 1.7
    aside: float = 0.0
    focal: float = 0.7
    horizon: float = 0.46
    middle: float = 0.5


CAMERA = Camera()


class Street:
    """Flat faces in space, each kept with its class and the distance of the thing it belongs to.

    Nothing but buildings stands farther away than ``reach`` metres; posts are ``girth`` times as thick as real ones.
    """

    def __init__(self, rng: np.random.Generator, reach: float = 1000.0, girth: float = 1.0) -> None:
        self.rng = rng
        self.reach, self.girth = reach, girth
        self.away = 0.0  # of the thing that is being added
        self.kind: int | None = None
        self.faces: list[_Face] = []
        self.road()
        for side in (-1, 1):
            self.buildings(side)
            self.pavement(side)
        self.traffic()

    def face(self, points: Sequence[Point], colour: Colour, light: float = 1.0) -> None:
        """A polygon, or an ellipse if there are but two points, which are then the corners of its box."""
        if self.away <= self.reach or self.away >= GROUND - 2 or self.kind == BUILDING:
            self.faces.append(_Face(self.away, self.kind, points, colour, light))

    def rect(self, a: Point, c: Point, colour: Colour, light: float = 1.0) -> None:
        """The rectangle between two opposite corners that share their x, their y or their z."""
        b = (c[0], a[1], a[2]) if a[0] != c[0] else (a[0], a[1], c[2])
        self.face((a, b, c, (a[0] + c[0] - b[0], a[1] + c[1] - b[1], a[2] + c[2] - b[2])), colour, light)

    def ball(self, x: float, y: float, radius: float, colour: Colour, light: float = 1.0) -> None:
        z = self.away
        self.face(((x - radius, y + radius, z), (x + radius, y - radius, z)), colour, light)

    def parts(self, x: float, table: Sequence[Sequence[float]], *colours: Colour, side: int = 1) -> None:
        for left, right, low, high, which in table:
            corners = (x + side * left, low, self.away), (x + side * right, high, self.away)
            self.rect(*corners, colours[int(which)])

    def pick(self, colours: Sequence[Colour]) -> Colour:
        return colours[int(self.rng.integers(len(colours)))]

    def draw(self, height: int, width: int, camera: Camera = CAMERA) -> tuple[Image.Image, Image.Image]:
        """The picture and the class of each of its pixels, RGB and 8-bit grey."""
        focal, middle, horizon = (camera.focal * max(height, width), camera.middle * width, camera.horizon * height)
        fall = np.minimum(np.arange(height)[:, None, None] / horizon, 1)
        sky = np.broadcast_to(np.array(_SKY) * (1 - fall) + np.array(_HAZE) * fall, (height, width, 3))
        image, labels = Image.fromarray(sky.astype(np.uint8)), Image.new("L", (width, height), SKY)
        canvas, classes = ImageDraw.Draw(image), ImageDraw.Draw(labels)
        for face in sorted(self.faces, key=lambda face: -face.away):
            haze = min(face.points[0][2] / 190, 0.8)
            lit = np.minimum(np.array(face.colour) * face.light, 255) * (1 - haze) + np.array(_HAZE) * haze
            across = [round(middle + focal * (x - camera.aside) / z) for x, _, z in face.points]
            down = [round(horizon + focal * (camera.eye - y) / z) for _, y, z in face.points]
            if len(across) == 2:  # a wheel that is seen from its other side
                across.sort()
            outline = list(zip(across, down, strict=True))
            paint, mark = (canvas.ellipse, classes.ellipse) if len(outline) == 2 else (canvas.polygon, classes.polygon)
            paint(outline, fill=tuple(lit.astype(int).tolist()))
            if face.kind is not None:
                mark(outline, fill=face.kind)
        return image, labels

    def road(self) -> None:
        self.away = GROUND
        surfaces = ((300, _LAND, TERRAIN), (8.5, _PAVING, SIDEWALK), (5.3, _KERB, SIDEWALK), (5.1, _ROAD, ROAD))
        for half, colour, self.kind in surfaces:
            self.rect((-half, 0, 1), (half, 0, 400), colour)
        for x, z, long, light in self.rng.uniform((-4.5, 4, 1, 0.9), (4, 60, 5, 1.08), (30, 4)).tolist():
            self.rect((x, 0, z), (x + 0.7, 0, z + long), _ROAD, light)  # patches in the asphalt
        self.away = GROUND - 2  # after the shadows
        for x in (-3.05, 3.05):
            self.rect((x - 0.06, 0, 1), (x + 0.06, 0, 150), _WHITE)
        for z in range(2, 120, 6):
            self.rect((-0.07, 0, z), (0.07, 0, z + 3), _WHITE)
        for bar in range(-4, 5):
            self.rect((1.1 * bar - 0.3, 0, 11), (1.1 * bar + 0.3, 0, 14), _WHITE)

    def verge(self, wide: float) -> None:
        """Grass instead of the kerb and the first metres of paving; in the drawing order it is part of the ground."""
        self.away, self.kind = GROUND, TERRAIN
        for side in (-1, 1):
            self.rect((side * 5.1, 0, 1), (side * (5.1 + wide), 0, 150), _GRASS)

    def buildings(self, side: int) -> None:
        x, light, near = side * 8.5, 1.0 if side > 0 else 0.66, float(self.rng.uniform(2, 4))
        while near < 150:
            far, high = near + float(self.rng.uniform(10, 18)), 4 + 3.2 * int(self.rng.integers(2, 6))
            if side < 0:  # the sun stands behind them on the left
                self.away, self.kind = GROUND - 1, None
                self.rect((-8.5, 0, near), (-5.3, 0, far), _PAVING, 0.72)
                self.rect((-5.1, 0, near), (0.4 * high - 8.5, 0, far), _ROAD, 0.78)
            self.away, self.kind, colour = far, BUILDING, self.pick(_WALLS)
            self.rect((x, 0, near), (x + side * 14, high, near), colour, 0.82)
            self.rect((x, 0, near), (x, high, far), colour, light)
            self.rect((x, high - 0.4, near), (x, high, far), colour, light * 1.2)
            self.rect((x, 3, near), (x, 3.5, far), self.pick(_PAINTS), light)
            for z in np.arange(near + 0.7, far - 1.4, 2.6).tolist():
                shine = light * float(self.rng.uniform(0.7, 1.4))
                self.rect((x, 0.4, z - 0.4), (x, 2.9, z + 1.7), _GLASS, shine)
                for y in np.arange(4.2, high - 1.8, 3.2).tolist():
                    self.rect((x, y - 0.15, z - 0.12), (x, y + 1.8, z + 1.42), colour, light * 1.25)
                    self.rect((x, y, z), (x, y + 1.7, z + 1.3), _GLASS, shine)
            near = far + float(self.rng.choice([0, 0, 2.5]))

    def pavement(self, side: int) -> None:
        for z in (np.arange(9, 110, 12) + self.rng.uniform(0, 3, 9)).tolist():
            self.away, self.kind, x = z, VEGETATION, side * 6.4
            self.rect((x - 0.13, 0, z), (x + 0.13, 3.2, z), (92, 72, 56))
            for i, (u, v, size) in enumerate(self.rng.uniform(-1, 1, (80, 3)).tolist()):
                left, y = x + u * (1.4 - 0.6 * abs(v)) - i / 200, 4.3 + v * 1.3 + i / 160
                self.ball(left, y, 0.4 + 0.14 * size, (84, 128, 56), 0.6 + i / 140)
            self.away, self.kind = self.away + 5, POLE
            self.parts(side * 5.5, self.stout(_LAMP), _STEEL, _WHITE, side=side)
        self.away, self.kind = 14.5, POLE
        self.parts(side * 5.6, self.stout(_SIGNAL), _STEEL, _DARK, _RED)
        for x, z in self.rng.uniform((5.6, 7), (8, 45), (8, 2)).tolist():
            self.person(side * x, z)
        self.person(side * float(self.rng.uniform(0.5, 3.5)), 12.5)  # on the crossing

    def stout(self, table: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        """A post's parts with a column, the first of them, of this street's girth."""
        left, right, *rest = table[0]
        return [(left * self.girth, right * self.girth, *rest), *table[1:]]

    def person(self, x: float, z: float) -> None:
        self.away, self.kind = z, None
        self.rect((x - 0.2, 0, z - 0.1), (x + 0.6, 0, z + 0.1), (84, 84, 88))  # its shadow
        self.kind = PERSON
        self.parts(x, _PERSON, self.pick(_PAINTS), self.pick(_PAINTS))
        self.ball(x, 1.63, 0.14, (74, 54, 42))
        self.ball(x, 1.58, 0.115, (204, 158, 132))

    def traffic(self) -> None:
        for lane, first, gap in ((1.6, 17, 16), (-1.6, 19, 19), (4.1, 16, 7), (-4.1, 16, 8)):
            z = first + float(self.rng.uniform(0, 4))
            while z < 90:
                self.park(lane, z)
                z += gap * float(self.rng.uniform(0.8, 1.8))

    def park(self, x: float, z: float) -> None:
        """A car with its back or its front to the camera, as its side of the road has it."""
        self.car(x, z, self.pick(_PAINTS), _RED if x > 0 else _WHITE)

    def car(self, x: float, z: float, paint: Colour, lamps: Colour) -> None:
        self.away, self.kind, flank = z, None, x - 0.9 if x > 0 else x + 0.9  # the flank that can be seen
        self.rect((x - 1, 0, z - 0.15), (x + 1.25, 0, z + 4.3), (46, 47, 51))  # its shadow
        self.kind = CAR
        self.rect((flank, 0.3, z), (flank, 0.85, z + 4.2), paint, 0.8)
        for axle in (z + 0.8, z + 3.4):
            turn = -0.34 if x > 0 else 0.34  # an ellipse's box starts at its left
            self.face(((flank, 0.68, axle - turn), (flank, 0, axle + turn)), _DARK)
        self.rect((x - 0.9, 0.85, z), (x + 0.9, 0.85, z + 4.2), paint, 1.1)
        rear, roof, side = z + 0.4, z + 1, x + (flank - x) * 0.75
        for low, a, high, b, colour in ((0.85, 0.86, 1.4, 0.68, paint), (0.9, 0.76, 1.35, 0.58, _GLASS)):
            self.face(((x - a, low, rear), (x - b, high, roof), (x + b, high, roof), (x + a, low, rear)), colour)
        self.face(((flank, 0.85, rear), (flank, 0.85, z + 3.6), (side, 1.4, z + 2.9), (side, 1.4, roof)), _GLASS)
        self.rect((x - 0.68, 1.4, z + 1), (x + 0.68, 1.4, z + 2.9), paint, 1.3)
        self.parts(x, _CAR, paint, _DARK, _WHITE, lamps)
