"""Which sizes are chosen; what one costs is tested in tests/models/test_cost.py."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from hiresvit.errors import UsageError
from hiresvit.models.create import model_spec
from hiresvit.models.macs import Macs
from hiresvit.workflows import plan_sizes
from hiresvit.workflows.plan_sizes import sizes_near, sizes_within

NANO = model_spec("hrvit_nano", "features")


def rows(plan: dict[str, Any]) -> list[tuple[int, int]]:
    return [(row["imgsz"][0], row["imgsz"][1]) for row in plan["sizes"]]


def test_near_a_size_the_least_padding_comes_first() -> None:
    plan = sizes_near(NANO, (192, 256), 2)
    assert rows(plan)[0] == (224, 224)
    shares = [row["padding"] for row in plan["sizes"]]
    assert shares == sorted(shares)
    assert [row["imgsz"] for row in plan["sizes"] if row["asked"]] == [[192, 256]]
    assert plan["refused"] is None


def test_a_refused_size_is_said_and_the_nearest_shown() -> None:
    plan = sizes_near(NANO, (250, 316), 2)
    assert plan["refused"] == "250x316: HRViT takes multiples of 32 on both sides; nearest: 224x288 or 256x320"
    assert (256, 320) in rows(plan)
    assert not any(row["asked"] for row in plan["sizes"])


def test_where_nothing_is_padded_the_nearest_come_first() -> None:
    spec = model_spec("hiri_vit_s", "features")
    assert rows(sizes_near(spec, (128, 192), 2)) == [(128, 192), (64, 192)]


def price(size: tuple[int, int]) -> int:
    return 1000 * size[0] * size[1] + size[0] * size[1] ** 2


@pytest.mark.parametrize("shape", [(9, 16), (1, 1), (3, 2)])
@pytest.mark.parametrize("budget", [40e6, 100e6])
def test_within_a_budget_no_other_size_holds_a_larger_picture(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], budget: float
) -> None:
    monkeypatch.setattr(plan_sizes, "count_by_module", lambda _, size: {"": Macs(price(size), 0)})
    monkeypatch.setattr(plan_sizes, "_row", lambda _, size, asked: {"imgsz": list(size)})
    found = rows(sizes_within(NANO, budget, shape, 4))
    every = product(range(32, 2048, 32), range(32, 2048, 32))

    def held(size: tuple[int, int]) -> float:
        return min(size[0] / shape[0], size[1] / shape[1])

    affordable = sorted((size for size in every if price(size) <= budget), key=lambda s: (-held(s), s[0] * s[1]))
    assert [held(size) for size in found] == [held(size) for size in affordable[:4]]
    assert found[0] == affordable[0]


def test_the_rows_keep_the_budget() -> None:
    plan = sizes_within(NANO, 0.03e9, (1, 2), 1)
    assert len(plan["sizes"]) == 1
    assert all(row["macs"] <= 0.03e9 for row in plan["sizes"])
    assert all(row["imgsz"][0] < row["imgsz"][1] for row in plan["sizes"])


def test_a_budget_that_nothing_fits_or_everything() -> None:
    with pytest.raises(UsageError, match=r"too little for hrvit_nano; 32x32, the smallest size, takes 0\.00\d+ GMACs"):
        sizes_within(NANO, 1e6, (1, 1), 1)
    with pytest.raises(UsageError, match="enough for 8192x8192, the largest size that is looked at; give less than"):
        sizes_within(NANO, 1e18, (1, 1), 1)


def test_a_side_that_nobody_has() -> None:
    with pytest.raises(UsageError, match="--near 0x32: give sides of 1 to 8192 pixels"):
        sizes_near(NANO, (0, 32), 1)
