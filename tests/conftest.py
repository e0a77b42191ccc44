"""Fixtures that every test gets."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from autosparse.records import Pattern

sys.path.insert(0, str(Path(__file__).parent))
from captures import shared

# Read by OpenMP when torch loads it: threads that wait for one another sleep. Spinning, they take five
# times as long for the small layers of tests where anything else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# Files that take minutes, and folders whose tests share what takes long to make: they begin first where
# several processes share the files out, and one process has all of such a folder.
FIRST = ("pipeline", "train/test_team.py", "deploy", "compare")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what takes longest."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(here)
        named = [name for name in FIRST if file.is_relative_to(name)]
        return FIRST.index(named[0]) if named else len(FIRST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Shares files out, but for folders whose tests share what takes long to make."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            whole = (f"tests/{name}" for name in FIRST if file.startswith(f"tests/{name}/"))
            return next(whole, file)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it are skipped without one."""
    named = os.environ.get("AUTOSPARSE_DATA")
    if not named:
        pytest.skip("AUTOSPARSE_DATA does not name a folder with the real data")
    return Path(named)


@pytest.fixture
def largest_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what prunes enough in its largest blocks, though dense or others be faster here."""
    from autosparse.kernels import spec

    def expected(shape: object, pattern: Pattern, *rest: object, **how: object) -> float:
        return float(pattern.is_dense)

    monkeypatch.setattr(spec, "expected_cycles", expected)


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Families of patterns that the project does not have, each added by its one file alone."""
    import autosparse.patterns.families as package
    from autosparse.patterns import family

    own = dict(family.all_families())
    folder = str(Path(__file__).parent / "patterns" / "strangers")
    monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    family.all_families.cache_clear()
    family.all_families()
    yield
    for name in family._FAMILIES.keys() - own.keys():
        del family._FAMILIES[name]
        sys.modules.pop(f"{package.__name__}.{name}")
    family.all_families.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def quiet_neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets nothing that is tested depend on what else is measured or runs on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        lock = tmp_path_factory.mktemp("measuring") / "measuring.lock"
        patch.setenv("AUTOSPARSE_MEASURING_LOCK", str(lock))
        patch.setenv("AUTOSPARSE_BUSY_HOST", "accept")
        yield


@pytest.fixture(autouse=True)
def own_log() -> None:
    """Lets every test begin with the log as a library has it, whatever a command line has set."""
    log = logging.getLogger("autosparse")
    log.setLevel(logging.NOTSET)
    log.handlers.clear()


@pytest.fixture(scope="session", autouse=True)
def captured_once() -> Iterator[None]:
    """Captures what is the same but for its weights once, where a capture itself is not tested."""
    from autosparse.graph.trace import Exported

    module = sys.modules[Exported.__module__]  # the package has a function of its name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_export", shared(module._export))
        yield


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, str], None]]:
    """Adds a file ``added.py`` to a package, as if it lay beside the package's own."""
    from autosparse.models import registry

    added: list[str] = []

    def put(package: ModuleType, source: str) -> None:
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "added.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        added.append(f"{package.__name__}.added")
        registry.entries.cache_clear()

    yield put
    for name in added:
        sys.modules.pop(name, None)
    registry.entries.cache_clear()


@pytest.fixture(scope="session")
def known_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that knows this host: else every test that measures watches it for a second."""
    from autosparse import hardware
    from autosparse.kernels.probes import probe_handover_ns
    from autosparse.measuring.histories import save_history
    from autosparse.measuring.pace import probe_pace
    from autosparse.measuring.states import History

    home = tmp_path_factory.mktemp("known-host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(home))
        for threads in range(1, min(2, hardware.usable_cores()) + 1):
            probes = range(50)
            handovers_ns = tuple(probe_handover_ns(threads) for _ in probes) if threads > 1 else ()
            paces = tuple(probe_pace(threads) for _ in probes)
            history = History(handovers_ns=handovers_ns, paces=paces)
            save_history(hardware.hardware_id(), threads, history)
    return home


@pytest.fixture(autouse=True)
def own_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, known_host: Path
) -> Path:
    """Keeps every test away from the user's tuning database and caches."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(known_host, home, dirs_exist_ok=True)
    monkeypatch.setenv("AUTOSPARSE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own; what asks for it is skipped where there is none."""
    import postgres

    if why := postgres.why_none():
        pytest.skip(why)
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    import postgres

    return postgres.new_database(request.getfixturevalue("postgresql"))
