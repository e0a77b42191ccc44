"""How models are named: unknown names, users' files, libraries that may be absent."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from autosparse.errors import MissingDependency, ModelError
from autosparse.models import check_source, resolve

FACTORY = """
from torch import nn
from beside import WIDTH

LIMIT = 3

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3)
        self.head = nn.Linear(WIDTH, classes)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def build(num_classes=5):
    return Net(num_classes)

def fixed():
    return Net(5)

def shaped():
    net = Net(2)
    net.input_shape = (1, 9, 9)
    return net

def breaks():
    raise RuntimeError("no such luck")

def text():
    return "a network"

async def later():
    return build(3)

def weightless():
    return nn.ReLU()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("source", "near"),
    [
        ("resnet81", "resnet18"),
        ("ResNet50", "resnet50"),
        ("mobilenetv2", "mobilenet_v2"),
        ("vgg16", "vgg16_bn"),
    ],
)
def test_an_unknown_model_names_the_nearest(source: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"got '{source}'; did you mean .*{near}"):
        check_source(source)


@pytest.mark.parametrize("source", ["", "zzz", "timm:", ":resnet18", "tensorflow:resnet18"])
def test_names_like_nothing_list_what_there_is(source: str) -> None:
    with pytest.raises(ModelError, match="must have a known name"):
        check_source(source)


def test_a_weight_file_in_place_of_a_model_is_told_so() -> None:
    with pytest.raises(ModelError, match="--weights"):
        check_source("runs/best.pth")


def test_a_users_factory_is_called_with_the_classes(file: Path) -> None:
    check_source(f"{file}:build")
    assert resolve(f"{file}:build").classes == 5
    loaded = resolve(f"{file}:build", classes=3)
    assert loaded.classes == 3
    assert loaded.input_shape == (1, 224, 224)
    assert loaded.module(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert resolve(f"{file}:shaped").input_shape == (1, 9, 9)


def test_a_users_factory_is_random_by_seed(file: Path) -> None:
    one, same, other = (resolve(f"{file}:build", seed=s).module.head.weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_users_weights_decide_the_classes(file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save(resolve(f"{file}:build", classes=8).module.state_dict(), weights)
    assert resolve(f"{file}:build", weights=weights).classes == 8
    with pytest.raises(ModelError, match="5 classes were asked for"):
        resolve(f"{file}:build", weights=weights, classes=5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bulid", "defines: .*build"),
        ("LIMIT", "must name a function"),
        ("breaks", "RuntimeError: no such luck"),
        ("text", "must return a torch.nn.Module, but got str"),
        ("later", "must be a plain function, but it is async"),
        ("weightless", "has none"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_users_mistakes_are_named(name: str, reason: str, file: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        resolve(f"{file}:{name}")


def test_a_factory_with_other_outputs_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match=r"must have 10 outputs.*last layer has 5"):
        resolve(f"{file}:fixed", classes=10)


def test_names_inside_functions_are_not_factories(tmp_path: Path) -> None:
    path = tmp_path / "inner.py"
    path.write_text(
        "def outer():\n    def inner():\n        pass\n\nif True:\n    def branch(): pass\n"
    )
    check_source(f"{path}:branch")
    with pytest.raises(ModelError, match="inner"):
        check_source(f"{path}:inner")


def test_checking_a_factory_does_not_run_its_file(tmp_path: Path) -> None:
    path = tmp_path / "loud.py"
    path.write_text("raise SystemExit\n\ndef build():\n    pass\n")
    check_source(f"{path}:build")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("def build(:\n", "valid Python"),
        ("import nowhere_to_be_found\ndef build(): pass\n", "must run"),
    ],
)
def test_files_that_do_not_run_are_named(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(ModelError, match=reason):
        resolve(f"{path}:build")


def test_a_missing_file_or_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must exist"):
        check_source(f"{tmp_path}/absent.py:build")
    with pytest.raises(ModelError, match=r"path/to/file\.py:function"):
        check_source(f"{tmp_path}/absent.py")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("torchvision:resnet18", "pip install torchvision"),
        ("timm:resnet18", "pip install timm"),
        ("hf:some/model", "pip install transformers"),
    ],
)
def test_an_absent_library_is_named_with_the_remedy(
    source: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=line):
        resolve(source)


TIMM = """
from torch import nn

def is_model(name):
    return name in list_models()

def list_models():
    return ["one_layer", "two_layers"]

def create_model(name, pretrained, num_classes=11):
    assert pretrained is False
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
    module.default_cfg = {"input_size": (3, 2, 2)}
    return module
"""

TORCHVISION = """
from torch import nn

def list_models(module=None):
    assert module.__name__ == "torchvision.models"
    return ["alpha", "beta"]

def get_model(name, weights, num_classes=13):
    assert weights is None
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.Flatten())
"""

TRANSFORMERS = """
from types import SimpleNamespace
from torch import nn

class Net(nn.Module):
    def __init__(self, labels):
        super().__init__()
        self.config = SimpleNamespace(image_size=4, num_channels=3)
        self.head = nn.Linear(48, labels)
    def forward(self, x):
        return SimpleNamespace(logits=self.head(x.flatten(1)))

class AutoModelForImageClassification:
    @staticmethod
    def from_pretrained(name, local_files_only, num_labels=6, ignore_mismatched_sizes=False):
        assert local_files_only is True
        if name != "local/net":
            raise OSError("not in the cache\\nand a long explanation")
        return Net(num_labels)
"""


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stand-ins, importable under the libraries' names, that note how they are called."""
    for name, content in (("timm", TIMM), ("transformers", TRANSFORMERS)):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (tmp_path / "torchvision" / "models.py").write_text(TORCHVISION)
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("source", "shape", "classes"),
    [
        ("timm:one_layer", (3, 2, 2), 11),
        ("torchvision:alpha", (3, 224, 224), 13),
        ("hf:local/net", (3, 4, 4), 6),
    ],
)
def test_models_of_installed_libraries_are_built(
    source: str, shape: tuple[int, ...], classes: int
) -> None:
    loaded = resolve(source)
    assert (loaded.input_shape, loaded.classes) == (shape, classes)
    assert loaded.module(torch.zeros(2, 3, shape[1], shape[2])).shape[0] == 2
    assert loaded.pretrained == source.startswith("hf:")
    if not loaded.pretrained:
        assert resolve(source, classes=4).classes == 4


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("timm:one_laye", "did you mean one_layer"),
        ("torchvision:alpah", "did you mean alpha"),
        ("hf:far/away", "got: not in the cache; fetch it first"),
    ],
)
def test_models_unknown_to_a_library_are_refused(source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        resolve(source)


@pytest.mark.usefixtures("libraries")
def test_local_weights_for_other_classes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"must have 9 outputs.*has 6"):
        resolve("hf:local/net", classes=9)


def test_classes_must_be_positive() -> None:
    with pytest.raises(ModelError, match="at least 1"):
        resolve("resnet20", classes=0)


HEAD_FIRST = """
from torch import nn

class Net(nn.Module):
    input_shape = (3, 16, 16)
    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

class Boxes(Net):
    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.boxes = nn.Linear(64, 4)
    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return {"boxes": self.boxes(x), "logits": self.head(x)}

class Fixed(Net):
    def __init__(self):
        super().__init__(7)
"""


@pytest.mark.parametrize("name", ["Net", "Boxes"])
def test_the_head_is_the_layer_that_makes_the_outputs_wherever_it_is_defined(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "first.py"
    path.write_text(HEAD_FIRST)
    loaded = resolve(f"{path}:{name}", classes=10)
    assert loaded.classes == 10
    assert resolve(f"{path}:{name}", classes=3).classes == 3
    assert resolve(f"{path}:{name}").classes == 10
    weights = tmp_path / "three.pt"
    torch.save(resolve(f"{path}:{name}", classes=3).module.state_dict(), weights)
    assert resolve(f"{path}:{name}", weights=weights).classes == 3
    with pytest.raises(ModelError, match=r"10 classes were asked for and .* has 3"):
        resolve(f"{path}:{name}", weights=weights, classes=10)
    with pytest.raises(
        ModelError, match="must have 10 outputs, one per class, but its last layer has 7"
    ):
        resolve(f"{path}:Fixed", classes=10)


def test_a_file_imports_what_lies_beside_it_whenever_it_does(tmp_path: Path) -> None:
    (tmp_path / "late_helper.py").write_text("WIDTH = 6\n")
    (tmp_path / "later_helper.py").write_text("def scale(x):\n    return 2 * x\n")
    path = tmp_path / "late.py"
    path.write_text("""
from torch import nn

class Net(nn.Module):
    input_shape = (1, 8, 8)
    def __init__(self):
        super().__init__()
        from late_helper import WIDTH
        self.conv = nn.Conv2d(1, WIDTH, 3)
    def forward(self, x):
        from later_helper import scale
        return scale(self.conv(x)).mean((2, 3))

def build():
    return Net()
""")
    before = list(sys.path)
    loaded = resolve(f"{path}:build")
    assert loaded.classes == 6
    assert loaded.module(torch.zeros(1, 1, 8, 8)).shape == (1, 6)
    assert [entry for entry in sys.path if entry != str(tmp_path)] == before
    assert sys.path[0] != str(tmp_path), "it hides no module of anybody else"


@pytest.mark.parametrize(
    "edit",
    [
        "sys.path.remove(os.path.dirname(os.path.abspath(__file__)))",
        "sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(__file__)]",
        "sys.path = list(sys.path)",
        "sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))",
        "sys.path.insert(0, os.path.dirname(__file__))",
    ],
)
def test_a_file_may_edit_where_modules_are_looked_for(
    edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "lib").mkdir()
    path = tmp_path / "edits.py"
    path.write_text(
        f"import os, sys\n{edit}\nfrom torch import nn\ndef build():\n    return nn.Linear(4, 3)\n"
    )
    assert resolve(f"{path}:build").classes == 3
    if "'lib'" in edit:
        assert str(tmp_path / "lib") in sys.path, "what the file added stays"


def test_files_of_two_folders_each_import_their_own_neighbour(tmp_path: Path) -> None:
    for folder, width in (("one", 3), ("two", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\ndef build():\n    from neighbour import WIDTH\n"
            "    return nn.Linear(4, WIDTH)\n"
        )
    for folder, width in (("one", 3), ("two", 5), ("one", 3)):
        assert resolve(f"{tmp_path / folder / 'net.py'}:build").classes == width


def test_a_file_runs_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "once.py"
    text = (
        "import pathlib\nfrom torch import nn\n"
        "with open(pathlib.Path(__file__).with_suffix('.log'), 'a') as log:\n    log.write('ran ')\n"
        "def build():\n    return nn.Linear(4, 3)\n"
    )
    path.write_text(text)
    first, second = resolve(f"{path}:build", seed=4), resolve(f"{path}:build", seed=4)
    assert torch.equal(first.module.weight, second.module.weight)
    assert path.with_suffix(".log").read_text() == "ran "
    path.write_text(text.replace("4, 3", "4, 2"))
    assert resolve(f"{path}:build").classes == 2


def test_a_file_that_ends_the_process_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ends.py"
    path.write_text("import sys\ndef build():\n    sys.exit(0)\n")
    with pytest.raises(ModelError, match="must return, but it raised SystemExit"):
        resolve(f"{path}:build")
    path.write_text("import sys\nsys.exit(0)\ndef build(): pass\n")
    with pytest.raises(ModelError, match="must run, but it raised SystemExit"):
        resolve(f"{path}:build")
