"""`hiresvit plan-sizes`: what is printed, and what is refused."""

from __future__ import annotations

import json

import pytest
from conftest import Cli


def test_the_table_and_the_document_say_the_same(cli: Cli) -> None:
    asked = ("plan-sizes", "hrvit_nano", "--task", "features", "--near", "100x128", "--count", "2")
    table, document = cli(*asked), cli(*asked, "--json")
    assert (table.code, document.code) == (0, 0)
    assert "100x128: HRViT takes multiples of 32" in table.err
    found = json.loads(document.out)
    assert found["schema_version"] == 1
    assert found["notes"] == [found["plan_sizes"]["refused"]]
    for row in found["plan_sizes"]["sizes"]:
        height, width = row["imgsz"]
        assert f"{height}x{width}" in table.out
        assert f"{100 * row['padding']:.1f} %" in table.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("hrvit_nan",), "did you mean hrvit_nano"),
        (("hrvit_nano", "--task", "classify"), "does not serve classify"),
        (("hrvit_nano", "--device", "orin-nxx"), "did you mean orin-nx"),
        (("hrvit_nano", "--bandwidth", "100"), "--tflops"),
        (("hrvit_nano", "--near", "512"), "--near 512: give HEIGHTxWIDTH such as 512x1024"),
        (("hrvit_nano", "--near", "axb"), "--near axb: give HEIGHTxWIDTH"),
        (("hrvit_nano", "--near", "99999x32"), "give sides of 1 to 8192 pixels"),
        (("hrvit_nano", "--budget-macs", "0"), "--budget-macs 0: give a number above 0"),
        (("hrvit_nano", "--budget-macs", "nan"), "--budget-macs nan: give a number above 0"),
        (("hrvit_nano", "--budget-macs", "1e-6"), "too little for hrvit_nano"),
        (("hrvit_nano", "--aspect", "16:9"), "--aspect 16:9: goes with --budget-macs"),
        (("hrvit_nano", "--budget-macs", "1", "--aspect", "16:0"), "--aspect 16:0: give WIDTH:HEIGHT"),
        (("hrvit_nano", "--set", "window=1"), "no family has a setting window"),
    ],
)
def test_what_cannot_be_served(cli: Cli, args: tuple[str, ...], said: str) -> None:
    result = cli("plan-sizes", *args)
    assert result.code == 2
    assert result.out == ""
    assert said in result.err
    assert result.err.count("\n") == 1
