"""Command lines for every verb: mostly one thing wrong, so that what comes after it is reached too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import values
from tests.fuzz.files import Files
from tests.fuzz.shop import Shop
from tests.fuzz.values import Draw

Flag = Callable[[Draw, Files], str]


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        verb: for counting; those of the Python interface begin with ``py-``.
        arguments: the command line.
        environ: variables on top of the usual ones.
    """

    verb: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def is_plain(self) -> bool:
        """Whether it asks for no traceback, and not Python."""
        return "--debug" not in self.arguments and not self.verb.startswith("py-")


def make(seed: int, number: int, shop: Shop, folder: Path) -> Case:
    """Makes a case and its files; the same for the same seed and number."""
    draw = Draw(f"{seed}:{number}")
    files = Files(draw, shop, folder)
    verb = draw.choices(list(_VERBS), [weight for weight, _ in _VERBS.values()])[0]
    environ = {"AUTOSPARSE_HOME": files.home()}
    arguments = _VERBS[verb][1](draw, files)
    if draw.chance(0.15):
        environ |= _environment(draw, files)
    return Case(
        verb,
        tuple(_typeable(each) for each in arguments),
        {k: _typeable(v) for k, v in environ.items()},
    )


def _typeable(text: str) -> str:
    """Takes out what no shell can hand over: NUL bytes, and surrogates that stand for no byte."""
    kept = text.replace("\0", "")
    return (
        kept.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        if _encodes(kept)
        else ""
    )


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


# -------------------------------------------------------------------------------------- flags by kind


def _typed(maker: Callable[[Draw], str]) -> Flag:
    return lambda draw, files: maker(draw)


def _one(pool: tuple[str, ...]) -> Flag:
    return lambda draw, files: draw.one(pool)


_SEARCH: dict[str, tuple[str, Flag]] = {
    # name: what is right, and what may be wrong
    "data": ("", lambda draw, files: files.data()),
    "weights": ("", lambda draw, files: files.weights()),
    "data-resolution": ("16", _typed(values.number)),
    "latency-budget": ("5ms", _one(values.DURATIONS)),
    "batch-size": ("2", _typed(values.number)),
    "input-shape": ("3x16x16", _one(values.SHAPES)),
    "dtype": ("f32", _typed(values.of("f32", "bf16", "auto", "f16", "int8"))),
    "threads": ("1", _typed(values.number)),
    "device": ("cpu", _typed(values.of("auto", "cpu", "cuda", "gpu"))),
    "trials": ("4", _typed(values.number)),
    "time-budget": ("1m", _one(values.DURATIONS)),
    "parallel": ("1", _typed(values.number)),
    "seed": ("5", _typed(values.number)),
    "study-name": ("study", _typed(values.word)),
    "storage": ("", lambda draw, files: draw.one((files.storage(), draw.one(values.URLS)))),
    "database": ("", lambda draw, files: draw.one((files.database(), draw.one(values.URLS)))),
    "address": ("none", _one(values.ADDRESSES)),
    "host": ("here", _typed(values.of("here", "127.0.0.1", "node:nowhere", "::1"))),
    "space": ("", lambda draw, files: draw.one((files.space(), files.space(), values.word(draw)))),
    "include": ("*", _one(values.GLOBS)),
    "exclude": ("6", _one(values.GLOBS)),
    "top-k": ("1", _typed(values.number)),
    "train": ("none", _typed(values.of("none", "short", "full"))),
    "out": ("", lambda draw, files: files.path()),
}  # fmt: skip
_TUNE = (
    "batch-size",
    "input-shape",
    "dtype",
    "threads",
    "device",
    "time-budget",
    "database",
    "space",
    "include",
    "exclude",
)


def _right(name: str, files: Files) -> str:
    usual = {
        "data": files.shop.data,
        "weights": str(files.shop / "weights.safetensors"),
        "space": str(files.shop / "space.yaml"),
        "out": str(files.folder / "results"),
        "database": str(files.folder / "own.db"),
        "storage": f"sqlite:///{files.folder / 'study.db'}",
    }
    return usual.get(name) or _SEARCH[name][0]


def _settings(draw: Draw, files: Files, names: tuple[str, ...]) -> list[str]:
    """Gives flags of which most are right, and one or two perhaps are not."""
    wrong = draw.some(names, draw.one((0, 1, 1, 1, 1, 2, 2)))
    line = []
    for name in dict.fromkeys([*draw.some(names, 3), *wrong]):
        value = _SEARCH[name][1](draw, files) if name in wrong else _right(name, files)
        line += [f"--{name}={value}"] if draw.chance(0.5) else [f"--{name}", value]
    return line


def _model(draw: Draw, files: Files) -> list[str]:
    choice = draw.random()
    if choice < 0.75:
        return ["--model", files.shop.model]
    return [] if choice < 0.78 else ["--model", files.model()]


def _noise(draw: Draw, line: list[str]) -> list[str]:
    """Puts in, now and then, what belongs to no verb."""
    if draw.chance(0.08):
        extra = draw.one(
            (
                "-v",
                "-q",
                "-vv",
                "--debug",
                "--json",
                "--",
                "-h",
                "--help",
                "--version",
                "--nothing",
                "-",
            )
        )
        line.insert(draw.randrange(len(line) + 1), extra)
    if draw.chance(0.04):
        line.insert(draw.randrange(len(line) + 1), values.word(draw))
    if draw.chance(0.03) and line:
        del line[draw.randrange(len(line))]
    return line


# --------------------------------------------------------------------------------------------- verbs


def _search(draw: Draw, files: Files) -> list[str]:
    line = [*_model(draw, files), *_settings(draw, files, tuple(_SEARCH))]
    # Without data that are read quickly, a dry run takes most of the time there is.
    line += ["--data", files.shop.data] if "--data" not in " ".join(line) else []
    line += ["--train", "none"] if "--train" not in " ".join(line) else []
    if draw.chance(0.3):
        line += ["--config", files.config()]
    if draw.chance(0.1):
        line += [draw.one(("--resume", "--fresh", "--compact-weights", "--no-compact-weights"))]
    if draw.chance(0.25):
        target = files.path(".yaml") if draw.chance(0.4) else str(files.new("saved", ".yaml"))
        line += ["--save-config", target]
    # At the end, so that nothing before can take it for its value: a search is never started.
    return ["search", *_noise(draw, line), "--dry-run"]


def _tune(draw: Draw, files: Files) -> list[str]:
    wrong = draw.one(_TUNE)
    line = [
        *_model(draw, files),
        *_settings(draw, files, _TUNE),
        "--space",
        str(files.shop / "space.yaml"),
    ]
    line += [f"--{wrong}", _SEARCH[wrong][1](draw, files), "--time-budget", "1us"]
    if draw.chance(0.3):
        line += ["--config", files.config()]
    # No measuring process: more threads than any machine has, unless something else is refused before.
    return ["tune", *_noise(draw, line), *([] if draw.chance(0.01) else ["--threads", "99999"])]


def _train(draw: Draw, files: Files) -> list[str]:
    root, run = files.runs()
    line = [run, "--out", root, "--epochs", draw.one(("1", "1", values.number(draw)))]
    # What is not refused for anything else is refused for this.
    line += ["--pick", draw.one(("knee", "fastest", "")), "--pick", values.word(draw) + "?"]
    if draw.chance(0.3):
        line += ["--kind", values.of("short", "full")(draw)]
    return ["train", *_noise(draw, line)]


def _export(draw: Draw, files: Files) -> list[str]:
    root, run = files.runs()
    line = [run, "--out", root]
    kind = (
        values.of("artifact", "onnx", "torch")(draw)
        if draw.chance(0.4)
        else draw.one(("artifact", "torch"))
    )
    ending = {"artifact": ".autosparse", "onnx": ".onnx"}.get(kind, draw.one((".pt", ".safetensors")))
    target = files.path(ending) if draw.chance(0.4) else str(files.new("exported", ending))
    line += ["--to", kind, "--output", target]
    if draw.chance(0.3):
        line += ["--id", draw.one(("knee", "fastest", "most-accurate", values.word(draw)))]
    if draw.chance(0.3):
        line += ["--force"]
    return ["export", *_noise(draw, line)]


_BENCH: dict[str, Flag] = {
    "weights": lambda draw, files: files.weights(),
    "shape": _one(values.SHAPES),
    "batch": _typed(values.number),
    "seed": _typed(values.number),
    "pattern": _one(values.PATTERNS),
    "block-n": _typed(values.number),
    "sparsity": _one(values.FRACTIONS),
    "exclude": _one(values.GLOBS),
    "plan": lambda draw, files: files.plan(),
    "artifact": lambda draw, files: files.artifact(),
    "dtype": _typed(values.of("f32", "bf16", "f32,bf16", ",")),
    "against": _typed(values.of("none", "torch", "onnxruntime", "openvino", "torch-int8", ",")),
    "calibration": lambda draw, files: files.data(),
    "threads": _typed(values.number),
    "seconds": _typed(values.number),
    "repeats": _typed(values.number),
    "database": lambda draw, files: draw.one((files.database(), draw.one(values.URLS))),
    "out": lambda draw, files: files.path(),
}


def _bench(draw: Draw, files: Files) -> list[str]:
    line = [*_model(draw, files)]
    for name in draw.some(tuple(_BENCH), 3):
        line += [f"--{name}", _BENCH[name](draw, files)]
    line += draw.some(("--compact-weights", "--no-dense", "--peers-masked", "--layers", "--json"), 1)
    if draw.chance(0.01):
        line += ["--repeats", "6", "--against", "none"]
        return ["bench", *_noise(draw, line)]
    # Ends before anything is run whole; artifacts and plans are read before.
    end = draw.one(
        (
            ["--threads", "99999"],
            ["--against", "nobody"],
            ["--against", "none", "--no-dense", "--sparsity", "none"],
        )
    )
    return ["bench", *_noise(draw, line), *end]


def _profile(draw: Draw, files: Files) -> list[str]:
    line = ["--refresh"] if draw.chance(0.02) else []
    if draw.chance(0.6):
        line += ["--break-even", "--model", files.model() if draw.chance(0.5) else files.shop.model]
        flags: dict[str, Flag] = {
            name: _BENCH[name] for name in ("pattern", "block-n", "database", "threads", "dtype", "out")
        }
        flags |= {"input-shape": _one(values.SHAPES), "batch-size": _typed(values.number)}
        for name in draw.some(tuple(flags), 3):
            line += [f"--{name}", flags[name](draw, files)]
        return ["profile", *_noise(draw, line), "--threads", "99999"]
    return ["profile", *_noise(draw, line)]


def _report(draw: Draw, files: Files) -> list[str]:
    root, run = files.runs()
    return ["report", *_noise(draw, [run, "--out", root])]


def _runs(draw: Draw, files: Files) -> list[str]:
    root, run = files.runs()
    root = files.path() if draw.chance(0.1) else root
    line = draw.one(
        (
            ["list"],
            ["show", run],
            ["show", run, "--json"],
            ["rm", run],
            ["rm", "-y", run, "x"],
            ["rm", "-y", run],
        )
    )
    return ["runs", *_noise(draw, [*line, "--out", root])]


def _db(draw: Draw, files: Files) -> list[str]:
    database = draw.one((files.database(), files.database(), draw.one(values.URLS)))
    verb = draw.one(("list", "export", "import", "merge", "gc", "verify"))
    line = {
        "export": [
            draw.one((str(files.new("rows", draw.one((".csv", ".json", ".txt")))), files.path(".csv")))
        ],
        "import": [files.export()],
        "merge": [draw.one((files.database(), draw.one(values.URLS)))],
        "gc": ["--dry-run"] if draw.chance(0.5) else [],
    }.get(verb, [])
    if verb in ("list", "export") and draw.chance(0.4):
        line += [draw.one(("--kernel", "--shape", "--status", "--hardware-id")), values.word(draw)]
    if verb == "list" and draw.chance(0.3):
        line += ["--limit", values.number(draw)]
    if verb not in ("export",) and draw.chance(0.3):
        line += ["--json"]
    return ["db", verb, *_noise(draw, [*line, "--database", database])]


def _small(draw: Draw, files: Files) -> list[str]:
    shell = values.of("bash", "zsh", "fish")
    lines = (
        *(["doctor"], ["kernels"], ["models"], ["runs"], ["db"], [], ["--version"], ["--help"]),
        *(["completion", "show"], ["completion", "install"], ["completion", "show", shell(draw)]),
        *(
            ["completion", "install", shell(draw)],
            [values.word(draw)],
            [values.misspelt(draw, "search")],
        ),
    )
    return _noise(draw, list(draw.one(lines)))


_VERBS: dict[str, tuple[int, Callable[[Draw, Files], list[str]]]] = {
    "search": (30, _search),
    "tune": (8, _tune),
    "train": (6, _train),
    "export": (6, _export),
    "bench": (12, _bench),
    "profile": (5, _profile),
    "report": (6, _report),
    "runs": (6, _runs),
    "db": (14, _db),
    "small": (3, _small),
    "py-load": (4, lambda draw, files: [files.artifact()]),
    "py-weights": (6, lambda draw, files: [files.weights()]),
    "py-run": (4, lambda draw, files: list(files.runs())),
}


# --------------------------------------------------------------------------------------- environment


def _environment(draw: Draw, files: Files) -> dict[str, str]:
    found = {}
    for _ in range(draw.randrange(1, 3)):
        name = draw.one(tuple(_SEARCH))
        variable = {"data": "AUTOSPARSE_DATASET"}.get(
            name, "AUTOSPARSE_" + name.upper().replace("-", "_")
        )
        found[variable] = _SEARCH[name][1](draw, files) if draw.chance(0.6) else _right(name, files)
    others = {
        "AUTOSPARSE_LOG": values.of("debug", "info", "warning"),
        "AUTOSPARSE_NOTHING": values.word,
        "AUTOSPARSE_CONFIG": values.word,
        "AUTOSPARSE_MODEL": lambda draw: files.model(),
        "AUTOSPARSE_COMPACT_WEIGHTS": values.of("true", "false", "1", "0"),
        "AUTOSPARSE_": values.word,
        "_AUTOSPARSE_COMPLETE": values.of("complete_bash", "source_bash", "bash_source", "complete"),
        "RAY_ADDRESS": lambda draw: draw.one(values.ADDRESSES),
        "COLUMNS": values.number,
        "TERM": values.word,
        "TMPDIR": lambda draw: files.path(),
        "OMP_NUM_THREADS": values.number,
        "NO_COLOR": values.word,
        "SHELL": values.word,
    }  # fmt: skip
    for name in draw.some(tuple(others), 2):
        found[name] = others[name](draw)
    return found
