"""Files and folders of one case: right ones, damaged ones, and what is no file at all."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz import shop as shops
from tests.fuzz.damage import as_json, bent, garbled, yaml_text
from tests.fuzz.shop import Shop
from tests.fuzz.state_dicts import save_almost
from tests.fuzz.values import Draw, odd, word

_SPECIAL = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/proc/self/mem",
    "/proc/1/mem",
    "/",
    "/proc",
    "/sys/kernel",
)


class Files:
    """Makes the files of one case in its folder.

    Args:
        draw: decides.
        shop: where good files are.
        folder: of the case.
    """

    def __init__(self, draw: Draw, shop: Shop, folder: Path) -> None:
        self._draw = draw
        self.shop = shop
        self.folder = folder
        self._number = 0

    # ------------------------------------------------------------------------------- any kind of path

    def path(self, ending: str = "") -> str:
        """Names something that is not the file that is wanted."""
        draw = self._draw
        makers: tuple[Callable[[str], Any], ...] = (
            self._absent, self._folder, self._empty, self._pipe, self._loop, self._dangling,
            self._long, self._bytes, self._newline, self._below_a_file, self._special, self._socket,
        )  # fmt: skip
        if draw.chance(0.15):
            return word(draw) + draw.one(("", ending))
        return str(draw.one(makers)(ending))

    def new(self, name: str = "file", ending: str = "") -> Path:
        self._number += 1
        return self.folder / f"{name}-{self._number}{ending}"

    def _absent(self, ending: str) -> Path:
        return self.new("absent", ending)

    def _folder(self, ending: str) -> Path:
        made = self.new("folder", ending)
        made.mkdir()
        return made

    def _empty(self, ending: str) -> Path:
        made = self.new("empty", ending)
        made.touch()
        return made

    def _pipe(self, ending: str) -> Path:
        made = self.new("pipe", ending)
        os.mkfifo(made)
        return made

    def _socket(self, ending: str) -> Path:
        import socket

        made = self.new("s", ending)
        with suppress(OSError), socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(made))
        return made

    def _loop(self, ending: str) -> Path:
        made = self.new("loop", ending)
        made.symlink_to(made.name)
        return made

    def _dangling(self, ending: str) -> Path:
        made = self.new("link", ending)
        made.symlink_to("nowhere")
        return made

    def _long(self, ending: str) -> str:
        return self._draw.one(("n" * 300, "d/" * 3000, str(self.folder / ("é" * 200)))) + ending

    def _bytes(self, ending: str) -> str:
        made = os.fsencode(self.new("bytes")) + b"\xff\xfe" + os.fsencode(ending)
        if self._draw.chance(0.5):
            Path(os.fsdecode(made)).write_bytes(b"x")
        return os.fsdecode(made)

    def _newline(self, ending: str) -> Path:
        made = self.folder / f"new\nline\x1b[31m{ending}"
        if self._draw.chance(0.5):
            made.write_bytes(b"x: [")
        return made

    def _below_a_file(self, ending: str) -> Path:
        return self._empty("") / f"x{ending}"

    def _special(self, ending: str) -> str:
        return self._draw.one(_SPECIAL)

    def _written(self, content: bytes, ending: str) -> str:
        made = self.new("file", ending)
        made.write_bytes(content)
        return str(made)

    def like(self, good: Path, ending: str | None = None) -> str:
        """Names a good file as it is, a damaged copy of it, or no such file."""
        draw = self._draw
        suffix = good.suffix if ending is None else ending
        choice = draw.random()
        if choice < 0.25:
            return str(good)
        if choice < 0.8:
            return self._written(garbled(draw, good.read_bytes()), suffix)
        return self.path(suffix)

    # --------------------------------------------------------------------------------- kinds of files

    def model(self) -> str:
        draw, shop = self._draw, self.shop
        choice = draw.random()
        if choice < 0.4:
            return f"{shop / 'odd_nets.py'}:{draw.one(shops.ODD_NET_NAMES)}"
        if choice < 0.6:
            return f"{self.like(shop / 'net.py')}:{draw.one(('build', 'nn', 'x', '', 'a.b'))}"
        if choice < 0.7:
            return f"{self._written(draw.one(_SOURCES), '.py')}:build"
        if choice < 0.9:
            head = draw.one(("hf", "timm", "torchvision", "zoo", "resnet18", "HF", ""))
            return f"{head}:{draw.one((self.path(), word(draw)))}"
        return draw.one((self.path(".py"), self.path(".pt"), word(draw)))

    def data(self) -> str:
        draw, shop = self._draw, self.shop
        choice = draw.random()
        if choice < 0.25:
            return f"{shop / 'my_data.py'}:{draw.one(shops.DATA_NAMES)}"
        if choice < 0.75:
            kind, name = draw.one(
                (("cifar10", "cifar"), ("fashion-mnist", "fashion"), ("imagefolder", "images"))
            )
            return f"{kind}:{self._damaged_folder(shop / name)}"
        if choice < 0.85:
            kinds = ("cifar10", "fashion-mnist", "imagefolder", "digits", "mnist")
            return f"{draw.one(kinds)}:{self.path()}"
        if choice < 0.9:
            return f"{self.like(shop / 'my_data.py')}:load"
        return word(draw)

    def _damaged_folder(self, good: Path) -> Path:
        """Gives a copy of a folder in which some files are damaged, lost or of another kind."""
        draw = self._draw
        made = self.new(good.name)
        shutil.copytree(good, made, symlinks=True)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        for file in draw.some(files, 3):
            how = draw.randrange(6)
            content = file.read_bytes()
            file.unlink()
            if how == 0:
                continue
            if how == 1:
                file.mkdir()
            elif how == 2:
                os.mkfifo(file)
            elif how == 3:
                file.symlink_to(draw.one((file.name, "/dev/zero", "nowhere")))
            else:
                file.write_bytes(garbled(draw, content))
        return made

    def weights(self) -> str:
        draw = self._draw
        choice = draw.random()
        if choice < 0.45:
            name = draw.one(("weights.pt", "legacy.pth", "checkpoint.pth", "weights.safetensors"))
            return self.like(self.shop / name, draw.one((None, ".pt", ".safetensors", ".bin")))
        if choice < 0.85:
            return save_almost(
                draw, self.shop, self.new("state", draw.one((".pt", ".pth", ".bin", ".safetensors")))
            )
        if choice < 0.9:
            return str(
                self.shop
                / draw.one(("model.autosparse", "tuning.db", "plan.yaml", "net.py", "rows.csv"))
            )
        return self.path(draw.one((".pt", ".pth", ".safetensors", ".onnx", ".npz")))

    def artifact(self) -> str:
        draw = self._draw
        good = (self.shop / "model.autosparse").read_bytes()
        if draw.chance(0.4):
            size = int.from_bytes(good[:8], "little")
            header = json.loads(good[8 : 8 + size])
            text = as_json(bent(draw, header))
            return self._written(
                len(text).to_bytes(8, "little") + text + good[8 + size :], ".autosparse"
            )
        return self.like(self.shop / "model.autosparse")

    def yaml(self, values: dict[str, Any], ending: str = ".yaml") -> str:
        """Writes plain values as a YAML file with something wrong about it, or names no such file."""
        draw = self._draw
        choice = draw.random()
        if choice < 0.4:
            return self._written(_yaml(bent(draw, values)), ending)
        if choice < 0.75:
            lines = _yaml(values).decode("utf-8", "surrogatepass").rstrip("\n")
            return self._written(yaml_text(draw, tuple(values), lines), ending)
        if choice < 0.85:
            return self._written(garbled(draw, _yaml(values)), ending)
        if choice < 0.9:
            return self._written(_yaml(odd(draw)), ending)
        return self.path(ending)

    def space(self) -> str:
        return self.yaml(shops.SPACE)

    def config(self) -> str:
        return self.yaml(self.shop.config)

    def plan(self) -> str:
        return self.yaml(yaml.safe_load((self.shop / "plan.yaml").read_text()))

    def database(self) -> str:
        draw = self._draw
        choice = draw.random()
        good = (self.shop / "tuning.db").read_bytes()
        if choice < 0.15:
            return self._written(good, ".db")
        if choice < 0.4:
            return self._written(garbled(draw, good), ".db")
        if choice < 0.8:
            made = self._written(good, ".db")
            with suppress(sqlite3.Error, OverflowError), sqlite3.connect(made) as connection:
                connection.execute(draw.one(_SQL))
            connection.close()
            return draw.one((made, f"sqlite:///{made}"))
        if choice < 0.85:
            return f"sqlite:///{self.path('.db')}"
        return self.path(".db")

    def storage(self) -> str:
        return f"sqlite:///{self.database().removeprefix('sqlite:///')}"

    def export(self) -> str:
        draw = self._draw
        if draw.chance(0.4):
            values = json.loads((self.shop / "rows.json").read_text())
            return self._written(as_json(bent(draw, values)), ".json")
        return self.like(
            self.shop / draw.one(("rows.csv", "rows.json")), draw.one((None, ".csv", ".json", ".txt"))
        )

    def runs(self) -> tuple[str, str]:
        """Gives a folder of runs and the name of one in it, whose files are damaged in some ways."""
        draw = self._draw
        root = self.new("results")
        shutil.copytree(self.shop / "results", root, symlinks=True)
        run = next(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
        for _ in range(draw.randrange(3)):
            self._damage_run(run)
        names = ("latest", run.name, run.name[:9], str(run), "", ".", "..", "/", "latest/", "*")
        wanted = draw.one(names) if draw.chance(0.7) else draw.one((word(draw), self.path()))
        return str(root), wanted

    def _damage_run(self, run: Path) -> None:
        draw = self._draw
        names = """pareto.json pareto.json state.json config.yaml hardware.json trials.csv
            latency_table.csv configs/small.yaml lock ../latest""".split()
        file = run / draw.one(names)
        if not file.is_file() and not file.is_symlink():  # damaged before, perhaps into a pipe
            return
        with suppress(OSError, ValueError):
            content = file.read_bytes() if file.is_file() else b""
            how = draw.randrange(8)
            if how < 4 and file.suffix == ".json":
                file.write_bytes(as_json(bent(draw, json.loads(content))))
                return
            if how < 4 and file.suffix == ".csv":
                file.write_text(_bent_csv(draw, content.decode()))
                return
            if how < 5:
                file.write_bytes(garbled(draw, content))
                return
            file.unlink()
            if how == 5:
                file.mkdir()
            elif how == 6:
                os.mkfifo(file)
            else:
                file.symlink_to(draw.one((file.name, "/dev/zero", "nowhere")))

    def home(self) -> str:
        """Gives an AUTOSPARSE_HOME; what is in it may be damaged."""
        draw = self._draw
        made = self.new("home")
        shutil.copytree(self.shop / "home", made)
        if draw.chance(0.6):
            return str(made)
        if draw.chance(0.3):
            return self.path()
        limits = next((made / "limits").glob("*.json"))
        with suppress(ValueError):
            limits.write_bytes(as_json(bent(draw, json.loads(limits.read_bytes()))))
        if draw.chance(0.3):
            limits.write_bytes(garbled(draw, limits.read_bytes()))
        if draw.chance(0.3):
            (made / "tuning.db").write_bytes(garbled(draw, (self.shop / "tuning.db").read_bytes()))
        for name in draw.some(("limits", "baselines", "tuning.db", "logs", "break-even"), 1):
            shutil.rmtree(made / name, ignore_errors=True)
            with suppress(OSError):
                (made / name).symlink_to(draw.one((name, "/dev/null", "nowhere")))
        return str(made)


def _yaml(values: Any) -> bytes:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text.encode("utf-8", "surrogatepass")


def _bent_csv(draw: Draw, text: str) -> str:
    rows = [line.split(",") for line in text.split("\n")]
    for _ in range(draw.randrange(1, 4)):
        row = draw.one((rows[0], draw.one(rows)))
        row[draw.randrange(len(row))] = draw.one(
            (
                "",
                "nan",
                "inf",
                "-1",
                "x",
                "9" * 400,
                '"',
                "\x00",
                "1e999",
                "a\rb",
                "é",
                ",,",
                "٣",
                "true",
            )
        )
    return "\n".join(map(",".join, rows))


_SOURCES = (
    b"",
    b"def build(: pass",
    b"# -*- coding: nonsense -*-\ndef build(): pass\n",
    b"\xff\xfe",
    b"def build():\x00 pass",
    b"build = " + b"(" * 5000,
    b"build = " + b"-" * 50_000 + b"1",
    b"build = " + b"[" * 150 + b"]" * 150,
    b"build = " + b"9" * 6000,
    b"build = 1 + " * 20_000 + b"1",
    b"from nothing import build",
    b"import autosparse_absent\ndef build(): pass",
    b"def build(): return build()",
    b"import sys; sys.exit(3)\ndef build(): pass",
    b"import sys; sys.path.clear()\ndef build(): pass",
    b"import os; os.chdir('/')\ndef build(): raise ValueError('a\\nb\\n' * 100)",
    b"def build(*a, **k): return k",
    b"class build: pass",
    b"def build():\n    yield 1",
    b"async def build(): pass",
    b"build = lambda: __import__('torch').nn.Identity()",
    b"def __getattr__(n): raise RuntimeError(n)\nbuild: int",
    b"raise BaseException('base')\ndef build(): pass",
    b"def build(): raise BaseException('base')",
    b"def build(): raise KeyboardInterrupt",
    b"def build(): raise GeneratorExit",
    b"def build(): raise MemoryError",
)
_SQL = (
    "UPDATE alembic_version SET version_num = '9999'",
    "UPDATE alembic_version SET version_num = NULL",
    "UPDATE alembic_version SET version_num = x'ff'",
    "DELETE FROM alembic_version",
    "DROP TABLE alembic_version",
    "DROP TABLE measurements",
    "ALTER TABLE measurements RENAME TO other",
    "ALTER TABLE measurements DROP COLUMN median_us",
    "ALTER TABLE measurements ADD COLUMN further TEXT",
    "UPDATE measurements SET status = 'odd'",
    "UPDATE measurements SET median_us = 'text'",
    "UPDATE measurements SET median_us = -1",
    "UPDATE measurements SET median_us = 9e999",
    "UPDATE measurements SET threads = 'many'",
    "UPDATE measurements SET threads = NULL, kept = NULL",
    "UPDATE measurements SET kept = 1.5",
    "UPDATE measurements SET kernel = x'ff00'",
    "UPDATE measurements SET kernel = CAST(x'ff' AS TEXT)",
    "UPDATE measurements SET message = NULL, version = NULL",
    "UPDATE measurements SET flops_kept = -5, repeats = -1",
    "UPDATE measurements SET measured_at = 'yesterday'",
    "UPDATE measurements SET sparsity = 'x'",
    "UPDATE measurements SET pattern = NULL, shape = NULL",
    "UPDATE measurements SET kernel = char(27) || '[31m' || char(10)",
    "CREATE TABLE studies (x)",
    "PRAGMA user_version = 9",
    "PRAGMA journal_mode = WAL",
    "CREATE VIEW v AS SELECT * FROM nothing",
    "CREATE TRIGGER t BEFORE INSERT ON measurements BEGIN SELECT RAISE(ABORT, 'no'); END",
)
