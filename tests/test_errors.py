"""What an import that fails for want of an extra means to the user."""

from __future__ import annotations

import pytest

from hiresvit.errors import missing_extra


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch", "PyTorch"), ("onnx", "onnx"), ("onnxscript", "onnxscript"), ("onnxsim", "onnxsim")],
)
def test_a_library_of_the_extra_is_named_with_its_remedy(module: str, name: str) -> None:
    found = missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert found is not None
    assert str(found) == f"this needs {name}, which is not installed: pip install 'hiresvit[export]'"
    assert found.exit_code == 6


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError(
            "No module named 'torch.gone'", name="torch.gone"
        ),  # torch is there, and another one
        ModuleNotFoundError("No module named 'numpy'", name="numpy"),
        ImportError("libc10.so: cannot open shared object file", name="torch"),
        KeyboardInterrupt(),
    ],
)
def test_any_other_failure_is_left_alone(error: BaseException) -> None:
    assert missing_extra(error) is None
