"""What can be asked of a daemon: verbs of the command line, checked and turned into command lines.

A verb's settings are the keys of its flags. What a daemon decides itself, where runs and rows go and
which cluster is joined, is no setting of a job.
"""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autosparse import factories, values
from autosparse.config import JUDGED, SearchConfig, flag, validate
from autosparse.deploy.reading import read_manifest
from autosparse.errors import ConfigError, RunError, got
from autosparse.jobs.roots import Roots
from autosparse.run_folders.listing import find_run
from autosparse.run_folders.shelf import LATEST
from autosparse.storage.files import write_yaml
from autosparse.storage.yaml_text import YamlError, read_yaml
from autosparse.values import Reader

CONFIG = "config.yaml"
_OF_THE_DAEMON = frozenset({"out", "database", "storage", "study_name", "address"})
_OF_TUNING = (
    *("model", "space", "include", "exclude", "batch_size", "input_shape", "dtype"),
    *("compact_weights", "threads", "device", "time_budget", "host"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a daemon's jobs work.

    Attributes:
        results: folder of all runs.
        database: URL of the tuning database.
        roots: what jobs may read.
        address: Ray cluster that they join; None for none.
    """

    results: Path
    database: str
    roots: Roots
    address: str | None = None


class Verb(ABC):
    """One verb that jobs can be of.

    Attributes:
        name: as on the command line.
        makes_run: whether it makes a run of its own, from whose folder it goes on.
        takes_host: whether its setting ``host`` names where is measured, so that jobs of it can be
            for other hardware than the daemon's.
    """

    name: str
    makes_run: bool
    takes_host = False

    @abstractmethod
    def settle(self, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Checks what is asked, before anything is stored.

        Returns:
            The settings as they are stored: plain values, files by their absolute paths.

        Raises:
            AutosparseError: an unknown key, a value that breaks its rule, a file that may not be read
                or is none, or something that is missing here.
        """

    @abstractmethod
    def command(self, settings: Mapping[str, Any], folder: Path, place: Place) -> list[str]:
        """Gives the arguments of the command line, and writes what it reads into the job's folder."""


class ConfigVerb(Verb):
    """A verb whose flags are keys of a search's configuration, handed over in a file.

    Args:
        name: as on the command line.
        keys: of the configuration.
        makes_run: see `Verb`.
    """

    def __init__(self, name: str, keys: Sequence[str], *, makes_run: bool) -> None:
        self.name = name
        self.keys = tuple(keys)
        self.makes_run = makes_run
        self.takes_host = "host" in self.keys

    def settle(self, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Checks it as the command line would, without a folder being made."""
        given = _known(settings, self.keys, self.name)
        if given.get("since", LATEST) != LATEST:  # what this is says the search, when it begins
            given["since"] = _run(given["since"], place.results)
        confined = {key: _confined(key, value, place.roots) for key, value in given.items()}
        config = SearchConfig(**self._all(confined, place))
        validate(config, writing=False)
        plain = config.to_plain()
        return {key: plain[key] for key in confined}

    def command(self, settings: Mapping[str, Any], folder: Path, place: Place) -> list[str]:
        """Writes the configuration and names it."""
        # Once more, as links and folders may have changed since it was asked.
        confined = {key: _confined(key, value, place.roots) for key, value in settings.items()}
        file = folder / CONFIG
        write_yaml(file, SearchConfig(**self._all(confined, place)).to_plain())
        return [self.name, "--config", str(file), "--json"]

    def _all(self, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        cluster = {} if place.address is None else {"address": place.address}
        return {**settings, "out": place.results, "database": place.database, **cluster}


class FlagVerb(Verb):
    """A verb that works on a run and takes flags.

    Args:
        name: as on the command line.
        keys: of its flags, and how they are read.
    """

    makes_run = False

    def __init__(self, name: str, keys: Mapping[str, Reader]) -> None:
        self.name = name
        self.keys = dict(keys)

    def settle(self, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Checks every flag, and that the run is one of the daemon's."""
        given = _known(settings, ("run", *self.keys), self.name)
        settled: dict[str, Any] = {"run": _run(given.pop("run", "latest"), place.results)}
        for key, value in given.items():
            confined = _confined(key, value, place.roots)
            read = self.keys[key](confined, key)
            settled[key] = list(read) if isinstance(read, tuple) else read
        return settled

    def command(self, settings: Mapping[str, Any], folder: Path, place: Place) -> list[str]:
        """Gives every setting as a flag."""
        words = [self.name, str(settings["run"]), "--out", str(place.results), "--json"]
        for key, value in settings.items():
            if key == "run" or value is False:
                continue
            if value is True:
                words.append(flag(key))
                continue
            for each in _listed(value):
                words += [flag(key), str(each)]
        return words


class CheckVerb(Verb):
    """The verb that checks a deployed artifact."""

    name = "check"
    makes_run = False
    _READ: Mapping[str, Reader] = MappingProxyType(
        {
            "artifact": values.text,
            "latency_budget": values.duration("5ms"),
            "threads": values.count(1),
            "judged": values.choice(JUDGED),
        }
    )

    def settle(self, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Checks every flag, and that the artifact is one, which may be read."""
        given = _known(settings, tuple(self._READ), self.name)
        for key in ("artifact", "latency_budget"):
            if key not in given:
                raise ConfigError(f"{self.name} needs {key.replace('_', ' ')}, but got none")
        settled = {key: self._READ[key](value, key) for key, value in given.items()}
        settled["latency_budget"] = values.exact_duration(settled["latency_budget"])
        settled["artifact"] = self._artifact(settled["artifact"], place)
        read_manifest(Path(settled["artifact"]))
        return settled

    def command(self, settings: Mapping[str, Any], folder: Path, place: Place) -> list[str]:
        """Gives every setting as a flag."""
        # Resolved once more, as links may have changed since it was asked.
        flags = {key: value for key, value in settings.items() if key != "artifact"}
        words = [word for key, value in flags.items() for word in (flag(key), str(value))]
        return [self.name, "--json", *words, "--", self._artifact(settings["artifact"], place)]

    def _artifact(self, named: str, place: Place) -> str:
        file = place.roots.resolve(named, "artifact")
        if not os.path.isfile(file):
            raise ConfigError(
                f"artifact must be a file, but there is no {got(file)}; export one: autosparse export"
            )
        return file


def _known(settings: Mapping[str, Any], keys: Sequence[str], verb: str) -> dict[str, Any]:
    for key in settings:
        if key in keys:
            continue
        if key in _OF_THE_DAEMON:
            raise ConfigError(
                f"{flag(key)} is the daemon's to decide, but a job set it to {got(settings[key])}; "
                "leave it out"
            )
        near = difflib.get_close_matches(str(key)[:64], keys, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(keys)}"
        raise ConfigError(f"a setting of {verb} must be one that exists, but got {got(key)}; {hint}")
    return {key: value for key, value in settings.items() if value is not None}


def _run(named: Any, results: Path) -> str:
    """Gives the name of a run of the daemon's, and of no folder elsewhere."""
    text = values.text(named, "run")
    found = find_run(results, text)
    if found.parent != results.resolve():
        raise RunError(
            f"run must be one of the daemon's, but got {got(text)}; see `autosparse runs list`"
        )
    return found.name


# ---------------------------------------------------------------------- settings that may name files


def _confined(key: str, value: Any, roots: Roots) -> Any:
    """Gives a setting with its file made absolute, if it names one that jobs may read."""
    if key == "set":
        _check_changes(value, roots)
        return value
    confine = _FILES.get(key)
    if confine is None or not isinstance(value, str) or not value:
        return value
    return confine(value, key, roots)


def _model(value: str, key: str, roots: Roots) -> str:
    library, separator, rest = value.partition(":")
    if factories.is_factory(value):
        return _factory(value, key, roots)
    if library == "hf" and separator and rest.startswith(("/", ".", "~")):
        return f"hf:{roots.resolve(rest, key)}"
    return value


def _data(value: str, key: str, roots: Roots) -> str:
    kind, _, rest = value.partition(":")
    if factories.is_factory(value):
        return _factory(value, key, roots)
    return f"{kind}:{roots.resolve(rest, key)}" if rest else value


def _factory(value: str, key: str, roots: Roots) -> str:
    roots.check_code(value, key)
    file, _, name = value.rpartition(":")
    return f"{roots.resolve(file, key)}:{name}" if file else value


def _weights(value: str, key: str, roots: Roots) -> str:
    return roots.resolve(value, key)


def _yaml(value: str, key: str, roots: Roots) -> str:
    is_file = "/" in value or value.endswith((".yaml", ".yml"))
    return roots.resolve(value, key) if is_file else value


def _recipe(value: str, key: str, roots: Roots) -> str:
    file = _yaml(value, key, roots)
    if file != value:
        try:
            held = read_yaml(Path(file))
        except (OSError, YamlError):
            return file  # is told when the recipe itself is read
        if isinstance(held, Mapping) and held.get("loss"):
            roots.check_code(str(held["loss"]), f"loss of {key}")
    return file


def _check_changes(value: Any, roots: Roots) -> None:
    for each in _listed(value):
        key, _, rest = str(each).partition("=")
        if key.strip() == "loss" and rest.strip():
            roots.check_code(rest.strip(), "loss")


_FILES: Mapping[str, Callable[[str, str, Roots], str]] = MappingProxyType(
    {"model": _model, "data": _data, "weights": _weights, "space": _yaml, "recipe": _recipe}
)

_SEARCH_KEYS = tuple(key for key in SearchConfig.model_fields if key not in _OF_THE_DAEMON)


def _words(value: Any, name: str) -> tuple[str, ...]:
    return tuple(values.text(each, name) for each in _listed(value))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        verb.name: verb
        for verb in (
            ConfigVerb("search", _SEARCH_KEYS, makes_run=True),
            ConfigVerb("tune", _OF_TUNING, makes_run=False),
            FlagVerb(
                "train",
                {
                    "pick": _words,
                    "kind": values.choice(("short", "full")),
                    "recipe": values.name_or_file(".yaml", ".yml"),
                    "set": _words,
                    "epochs": values.count(1),
                    "train_device": values.text,
                    "train_workers": values.count(1),
                    "share_training": values.switch,
                    "share_reach": values.fraction,
                },
            ),
            CheckVerb(),
        )
    }
)
"""Verb by name."""


def verb_named(name: str) -> Verb:
    """Gives a verb.

    Raises:
        ConfigError: jobs cannot be of it; names those they can be of.
    """
    if name not in VERBS:
        near = difflib.get_close_matches(str(name)[:64], VERBS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"verb must be one of {', '.join(VERBS)}, but got {got(name)}{hint}")
    return VERBS[name]
