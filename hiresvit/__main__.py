"""``python -m hiresvit`` is the command ``hiresvit``."""

import os
import sys

# `python -m` looks for modules in the current folder first, where a picture may lie beside a planted numpy.py.
if sys.path[0] in ("", os.getcwd()) and not os.path.samefile(sys.path[0] or ".", f"{__file__}/../.."):
    del sys.path[0]

from hiresvit.cli import main

if __name__ == "__main__":
    sys.exit(main())
