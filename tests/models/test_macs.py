"""Sizes and costs: what is counted, and that the models have what the papers print."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from by_path import ROOT, load
from torch import Tensor, nn

from hiresvit.models.create import create_model
from hiresvit.models.macs import Macs, count_macs, count_params
from hiresvit.models.zoo import MODELS

paper_numbers = load(ROOT / "benchmarks" / "paper_numbers.py")
ROWS = list(paper_numbers.rows())


LARGE = {"hrvit_b3", "lrformer_l", "lrformer_xl", "mixformer_b5", "mixformer_b6", "hiri_vit_l"}  # of the same modules


@cache
def counted(index: int) -> Any:
    return paper_numbers.count(ROWS[index])


def marks(name: str) -> Any:
    """For CI's time."""
    return pytest.mark.slow if name in LARGE or (name.endswith("_plus") and name != "lrformer_t_plus") else ()


class Toy(nn.Module):
    """A convolution, a linear layer, an attention, and things that do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 16, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        tokens = torch.relu(self.bn(self.conv(image))).flatten(2).transpose(1, 2)  # (B, N, 8)
        q, v = self.linear(tokens).chunk(2, dim=2)
        attended: Tensor = (q @ v.transpose(1, 2)).softmax(dim=2) @ v
        return attended


def test_counts_by_hand() -> None:
    model, tokens = Toy().train(), 4 * 6
    assert count_macs(model, (8, 12)) == Macs(
        products=tokens * 8 * 3 * 9 + tokens * 8 * 16, attention=2 * tokens * tokens * 8
    )
    assert count_params(model) == 8 * 3 * 9 + 8 + 2 * 8 + 8 * 16
    assert model.conv.weight.device.type == "cpu"
    assert not model.bn.num_batches_tracked  # counting does not train


def test_the_two_conventions() -> None:
    macs = Macs(products=100, attention=20)
    assert (macs.total, macs.paper) == (120, 110)


def test_counting_needs_no_data() -> None:
    model = create_model("hrvit_b1", "features", (64, 96)).double()
    with torch.device("meta"):
        shapes = create_model("hrvit_b1", "features", (64, 96))
    assert count_macs(model, (64, 96)) == count_macs(shapes, (64, 96))


# How far our count of multiply-accumulates may be from the paper's, by family. HRViT's convention is known and leaves
# 1.1 % of norms and biases. LRFormer's tool counts pooling, resizing and norms, 0.5 to 4.5 %. MixFormer prints one
# decimal and counts norms, 5 % for B3. HIRI-ViT has no code; the reading that fits best is within 1 %, 2 % at 224 and
# 3 % with UPerNet at 1024x1024, where one of the attention matmuls is 1 to 2 %.
# LRFormer+ is within 4 %, but for XL's 365 G, which fit nothing that was tried: ours are 314.6, and pooling to 32 gives
# 398.6; its parameters are the paper's (docs/lrformer.md).
TOLERANCES = {"hrvit": 0.015, "lrformer": 0.045, "mixformer": 0.055, "hiri_vit": 0.01}
NOT_REPRODUCED = {"lrformer_xl_plus"}


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(index, id=f"{row.model}, {row.what}, {row.imgsz[0]}x{row.imgsz[1]}", marks=marks(row.model))
        for index, row in enumerate(ROWS)
    ],
)
def test_paper(index: int) -> None:
    count = counted(index)
    row = count.row
    if row.params is not None and row.within is None:
        assert round(count.params / 1e6, row.digits) == row.params
    elif row.params is not None:
        assert count.params / 1e6 == pytest.approx(row.params, rel=row.within)
    if row.macs is not None and row.model not in NOT_REPRODUCED:
        tolerance = TOLERANCES[MODELS[row.model].family]
        if row.model.startswith("hiri_vit"):
            tolerance = {224: 0.02, 1024: 0.03}.get(row.imgsz[0], 0.01)
        if row.model.endswith("_plus"):
            tolerance = 0.04
        assert count.alike / 1e9 == pytest.approx(row.macs, rel=tolerance)
    assert row.params is not None or row.macs is not None


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in MODELS])
def test_registry_numbers(name: str) -> None:
    known = {(row.model, row.what, row.imgsz): index for index, row in enumerate(ROWS)}
    for task, numbers in MODELS[name].numbers.items():
        row = paper_numbers.more(name, task, task, None, None)
        index = known.get((name, task, row.imgsz))
        found = paper_numbers.count(row) if index is None else counted(index)
        # Written with three decimals.
        assert found.params / 1e6 == pytest.approx(numbers.params, abs=6e-4)
        assert found.macs.total / 1e9 == pytest.approx(numbers.gmacs, abs=6e-4)


@pytest.mark.slow
def test_document_is_up_to_date() -> None:
    document = paper_numbers.DOCUMENT.read_text()
    counts = [counted(index) for index in range(len(ROWS))]
    assert paper_numbers.with_table(document, paper_numbers.table(counts)) == document, (
        "run: python benchmarks/paper_numbers.py --write"
    )


def test_writing_keeps_the_rest() -> None:
    begin, end = paper_numbers.BEGIN, paper_numbers.END
    assert paper_numbers.with_table(f"a\n{begin}\nold\n{end}\nb\n", "new") == f"a\n{begin}\n\nnew\n\n{end}\nb\n"
