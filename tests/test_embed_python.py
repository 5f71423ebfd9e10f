"""The page for who embeds the Python runtime: every block of code in it runs, where there is neither torch nor onnx."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import environment
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "embed-python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnx")))  # whoever imports them gets an ImportError
"""


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_runs(number: int, tiny_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "hrvit_b1-segment-512x512").symlink_to(tiny_bundle)
    code = BLOCKS[number].replace("slide=(384, 384)", "slide=(48, 72)")  # the bundle's input is 64x96
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 4
