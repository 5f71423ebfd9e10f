"""Sizes and costs: what is counted, and that the models have what the papers print."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from by_path import ROOT, load
from torch import Tensor, nn

from hiresvit.models import MODELS, create_model
from hiresvit.models.macs import Macs, count_macs, count_params

paper_numbers = load(ROOT / "benchmarks" / "paper_numbers.py")
ROWS = list(paper_numbers.rows())


@pytest.fixture(scope="module")
def counts() -> list[Any]:
    return [paper_numbers.count(row) for row in ROWS]


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


@pytest.mark.parametrize("index", range(len(ROWS)), ids=[f"{row.model}, {row.what}" for row in ROWS])
def test_paper(counts: list[Any], index: int) -> None:
    count = counts[index]
    assert round(count.params / 1e6, 1) == count.row.params
    # The paper's tool also counts norms and biases, at most 1.1 % of these networks.
    assert count.macs.paper / 1e9 == pytest.approx(count.row.macs, rel=0.015)


def test_registry_gmacs(counts: list[Any]) -> None:
    ours = {(one.row.model, one.row.what): one.macs.total / 1e9 for one in counts}
    for name, entry in MODELS.items():
        for task, published in entry.published.items():
            # Printed with three decimals; the smallest is 2.776.
            assert ours[name, task] == pytest.approx(published.gmacs, rel=1e-3)


def test_document_is_up_to_date(counts: list[Any]) -> None:
    document = paper_numbers.DOCUMENT.read_text()
    assert paper_numbers.with_table(document, paper_numbers.table(counts)) == document, (
        "run: python benchmarks/paper_numbers.py --write"
    )


def test_writing_keeps_the_rest() -> None:
    begin, end = paper_numbers.BEGIN, paper_numbers.END
    assert (
        paper_numbers.with_table(f"a\n{begin}\nold\n{end}\nb\n", "new") == f"a\n{begin}\n\nnew\n\n{end}\nb\n"
    )
