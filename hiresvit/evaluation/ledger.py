"""What a pass over pictures has found so far, and its file, from which an interrupted pass goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path

Key = Callable[[int], str]
"""What the rows of so many pictures depend on, as one word."""


class Ledger:
    """Of each side and picture a row (`hiresvit.evaluation.counts`), of which ``done`` pictures are complete.

    ``equal`` (sides, pictures) are how many answers of a picture, of ``answers`` (pictures,), are as the first side's.
    ``failures`` say by number why sides answer no more (`HiresvitError.to_json`).
    """

    def __init__(self, sides: int, pictures: int, columns: int) -> None:
        self.rows = np.zeros((sides, pictures, columns))
        self.equal = np.zeros((sides, pictures))
        self.answers = np.zeros(pictures)
        self.done = 0
        self.failures: dict[int, dict[str, Any]] = {}

    @property
    def living(self) -> list[int]:
        """The numbers of the sides that have answered every picture so far."""
        return [side for side in range(len(self.rows)) if side not in self.failures]

    def fail(self, side: int, error: HiresvitError) -> None:
        """From here on a side answers no more."""
        self.failures[side] = error.to_json()

    def save(self, path: Path, key: Key) -> None:
        """Write what is complete. Raises HiresvitError if the place cannot be written."""
        done = self.done
        said = json.dumps([key(done), list(self.failures.items())])
        with atomic_path(path) as temporary, temporary.open("wb") as stream:  # a path would get the suffix .npz
            rows, equal = self.rows[:, :done], self.equal[:, :done]
            np.savez(stream, said=np.array(said), rows=rows, equal=equal, answers=self.answers[:done])

    def load(self, path: Path, key: Key) -> bool:
        """Go on from what `save` wrote under this key; False for anything else. The archive's own sums find damage."""
        with suppress(Exception):  # a damaged archive makes numpy raise almost anything
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                known, failures = json.loads(str(file["said"]))
                rows, equal, answers = file["rows"], file["equal"], file["answers"]
            done = len(answers)
            if known != key(done):
                return False
            self.rows[:, :done], self.equal[:, :done], self.answers[:done] = rows, equal, answers
            self.failures |= dict(failures)
            self.done = done
            return True
        return False
