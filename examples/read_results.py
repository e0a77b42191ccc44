"""Reads a finished search as pandas DataFrames and Plotly figures.

    python examples/read_results.py [RUN]

RUN is a name or folder of `autosparse runs list`; without one, the newest run under results/ is read.
The same lines work in a notebook, where the last value of a cell is shown as a table or a picture.
"""

# %%
import sys
from pathlib import Path

import autosparse

run = autosparse.Run(sys.argv[1] if len(sys.argv) > 1 else "latest")
print(f"{run!r}\n{run.summary.verdict}\n")

# %% The Pareto front: what was really measured, fastest first
front = run.front[
    ["measured_latency_ms", "latency_ci_low_ms", "latency_ci_high_ms", "accuracy", "speedup"]
]
print(front.round(3), end="\n\n")

# %% Where the time of the chosen configuration goes
chosen = run.configurations.index[run.configurations["chosen"]]
for config in chosen:
    layers = run.layers.loc[config].sort_values("measured_us", ascending=False)
    layers["dense_over_sparse"] = layers["dense_us"] / layers["measured_us"]
    print(f"the slowest layers of {config}:")
    columns = ["label", "dtype", "measured_us", "dense_us", "dense_over_sparse"]
    print(layers[columns].head(5).round(2), end="\n\n")

# %% How far predictions were off, and what the search tried
errors = run.configurations["predicted_latency_ms"] / run.configurations["measured_latency_ms"] - 1
print(f"predicted against measured: {errors.abs().mean():.1%} off on average")
print(run.trials.groupby("kind")["latency_ms"].describe()[["count", "min", "50%"]].round(3), end="\n\n")

# %% The least sparsity at which a measured sparse kernel beats the layer's dense one
rows = run.latency_rows
rows["sparse"] = rows["label"] != "dense"
dense_us = rows[~rows["sparse"]].groupby("layer")["median_us"].min()
wins = rows[rows["sparse"] & (rows["median_us"] < rows["layer"].map(dense_us))]
print(wins.groupby("layer")["label"].first().head(5), end="\n\n")

# %% The report's figures, as files that open in a browser
for name, figure in run.figures.items():
    figure.write_html(Path(f"{name}.html"), include_plotlyjs="cdn")
    print(f"wrote {name}.html")
