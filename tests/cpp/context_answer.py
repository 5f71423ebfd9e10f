"""A process of its own, for Qualcomm's library is in it: the raw output of the C++ engine for the pictures of an .npz.

``python context_answer.py BUILD BUNDLE CONTEXT PICTURES.npz ANSWERS.npz``; the environment names the libraries. Both of
the engine's slots and a second engine are used. What goes wrong ends it with the engine's code and line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from cpp_engine import CEngine, CError, label_answer, picture


def main() -> None:
    """See above."""
    build, bundle, context, pictures, answers = map(Path, sys.argv[1:])
    found: dict[str, Any] = {}
    try:
        first, second = (CEngine(build, bundle, context=context) for _ in range(2))
        second.close()
        with np.load(pictures) as given:
            for name, image in given.items():
                first.submit(picture([image]))
                first.submit(picture([image]))
                for slot in "ab":
                    first.wait(label_answer(np.empty(image.shape[:2], np.uint8)))
                    found[name + slot] = first.output(0)[1]
        first.close()
        CEngine(build, bundle, context=context).close()  # once more, after the last was closed
    except CError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
    np.savez(answers, **found)


if __name__ == "__main__":
    main()
