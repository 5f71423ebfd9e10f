"""``python -m hiresvit`` is the command ``hiresvit``."""

import os
import sys

# `python -m` looks into the current folder first, where a planted numpy.py may lie beside the pictures.
_home = os.path.dirname(os.path.dirname(__file__))
if sys.path[0] not in ("", _home) and os.path.exists(sys.path[0]) and os.path.samefile(sys.path[0], "."):
    del sys.path[0]

if __name__ == "__main__":
    from hiresvit.cli import main

    sys.exit(main())
