"""``python -m hiresvit`` is the command ``hiresvit``."""

import sys

from hiresvit.cli import main

if __name__ == "__main__":
    sys.exit(main())
