"""Does a report hold? Compiles every configuration again, in a process of its own, and measures.

    python benchmarks/remeasure.py results/latest [--json FILE]

Prints, per configuration, the reported and the new median, their ratio, and whether the budget is met.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from autosparse.config import SearchConfig
from autosparse.report import document as form

_ONE = """
import json, sys
import torch
from pathlib import Path
import autosparse
from autosparse import models
from autosparse.plan import Plan

asked = json.loads(sys.argv[1])
module = models.resolve(asked["model"], weights=Path(asked["weights"])).module
if not asked["pruned"]:
    autosparse.sparsify(module, Plan.load(asked["plan"]))
image = torch.randn(asked["batch_size"], *asked["input_shape"])
with autosparse.compile(
    module, (image,), threads=asked["threads"], plan=Plan.load(asked["plan"]),
    database=asked["database"],
) as compiled:
    measured = [compiled.measure() for _ in range(asked["rounds"])]
print(json.dumps(sorted(m.median_ms for m in measured)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=7, help="per process; the middle one counts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run = options.run.resolve()
    document = form.load(run)
    config = SearchConfig.from_yaml(run / "config.yaml")
    rows = [remeasure(run, document, config, one, options.rounds) for one in document.configs]
    print(
        f"{document.model}, {document.threads} threads, batch {document.batch_size}, f32, "
        f"budget {document.budget_ms} ms; dense {document.dense.latency.median_ms:.4f} ms"
    )
    print(f"{'id':10} {'reported ms':>12} {'again ms':>10} {'ratio':>7}  budget")
    for row in rows:
        print(
            f"{row['id']:10} {row['reported_ms']:12.4f} {row['again_ms']:10.4f} {row['ratio']:7.3f}  "
            f"{'met' if row['met'] else 'missed' if row['met'] is not None else '-'}"
        )
    if options.json:
        options.json.write_text(json.dumps({"run": run.name, "rows": rows}, indent=1) + "\n")


def remeasure(
    run: Path, document: form.Document, config: SearchConfig, one: form.Config, rounds: int
) -> dict[str, Any]:
    trained = sorted((run / "train").glob(f"{one.id}*/weights.safetensors"))
    weights = trained[-1] if trained else config.weights
    asked = {
        "model": document.model,
        "weights": str(weights),
        "pruned": bool(trained),
        "plan": str(run / one.plan),
        "input_shape": document.input_shape,
        "batch_size": document.batch_size,
        "threads": document.threads,
        "database": config.database,
        "rounds": rounds,
    }
    call = [sys.executable, "-c", _ONE, json.dumps(asked)]
    medians = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    again = medians[len(medians) // 2]
    reported = one.measured_latency_ms or float("nan")
    return {
        "id": one.id,
        "reported_ms": reported,
        "again_ms": again,
        "ratio": again / reported,
        "met": None if document.budget_ms is None else again <= document.budget_ms,
    }


if __name__ == "__main__":
    main()
