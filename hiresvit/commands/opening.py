"""Opening what a command line names: each option goes where it applies, or is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError

if TYPE_CHECKING:
    from hiresvit.workflows.open import Source


def open_sources(
    stack: ExitStack,
    texts: Sequence[str],
    model: opt.ModelOptions,
    graph: str | None,
    running: opt.RunnerOptions,
    *,
    threads_used: int | None = None,
    cuda_graph: bool = False,
) -> list[Source]:
    """Open what the texts name and close it with ``stack``. Raises UsageError for an option that applies to none.

    ``running.threads`` are what was asked for, ``threads_used`` what is taken where nothing was.
    """
    options, threads = model.given(), running.threads
    out.load_onnxruntime()
    from hiresvit.workflows.open import is_plan, open_source

    names = [text for text in texts if not Path(text).suffix and not Path(text).exists()]
    folders = [text for text in texts if Path(text).is_dir()]
    if options and not names:
        given = ", ".join(map(opt.option_text, options))
        raise UsageError(f"{given}: for a model name; {', '.join(texts)} brings its own")
    if running.runner and len(names) == len(texts):
        raise UsageError(f"--runner picks what opens a file; {', '.join(texts)} is computed by PyTorch")
    if graph and not folders:
        raise UsageError(f"--graph picks a file of a bundle folder; there is none in {', '.join(texts)}")
    plans = [is_plan(text, graph if text in folders else None) for text in texts]
    if threads and all(plans):
        raise UsageError(f"--threads {threads} is for PyTorch and ONNX Runtime; a plan runs on the GPU")
    if cuda_graph and not any(plans):
        raise UsageError(f"--cuda-graph is for a plan; there is none in {', '.join(texts)}")
    opened = []
    for text in texts:
        source = open_source(
            text,
            graph=graph if text in folders else None,
            runner=running.runner if text not in names else None,
            threads=threads or threads_used,
            cuda_graph=cuda_graph,
            **(options if text in names else {}),
        )
        stack.enter_context(source.runner)
        for note in source.notes:
            print(f"note: {source.label}: {note}", file=sys.stderr)
        opened.append(source)
    return opened
