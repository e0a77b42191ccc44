"""Everything a search can be told, checked before any work starts.

Each key is a flag (``--latency-budget``), an environment variable (``AUTOSPARSE_LATENCY_BUDGET``), a
line of a YAML file (``latency_budget: 5ms``) and an argument in Python. A flag wins over the
environment, the environment over the file, the file over the default. A key nobody knows is refused
with the nearest one that exists.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from autosparse import data, hardware, models, values
from autosparse.database.schema import check_file, parse_url
from autosparse.devices import AUTO, kind_and_number, kind_names
from autosparse.errors import ConfigError, DatabaseError, RunError, got
from autosparse.models.weight_files import check_weights
from autosparse.records import short_hash
from autosparse.run_folders.listing import find_run
from autosparse.run_folders.shelf import LATEST, check_latest
from autosparse.run_folders.state import FINISHED, read_state
from autosparse.searching import space as spaces
from autosparse.searching.cluster import HARDWARE, HERE, RECORDED, check_address, check_host
from autosparse.storage.files import opened
from autosparse.storage.paths import check_writable, home, home_folder, writable_folder
from autosparse.storage.yaml_text import YamlError, read_yaml
from autosparse.values import Reader

PREFIX = "AUTOSPARSE_"
# Variables that are no key. AUTOSPARSE_DATA names a folder of data sets for tests, so the key `data`
# has another name in the environment.
OTHER_VARIABLES = frozenset(
    {
        "AUTOSPARSE_HOME",
        "AUTOSPARSE_DATA",
        "AUTOSPARSE_LOG",
        "AUTOSPARSE_BUSY_HOST",
        "AUTOSPARSE_HOST_STATES",
        "AUTOSPARSE_MEASURING_LOCK",
        "AUTOSPARSE_SERVER",
        "AUTOSPARSE_TOKEN_FILE",
        "AUTOSPARSE_JOB_FOLDER",
        "AUTOSPARSE_LEASH",
    }
)
_OTHER_NAMES = {"data": "AUTOSPARSE_DATASET"}

TRAIN_KINDS = ("none", "short", "full")
ONE_SHOT = ("masks", "obs")
JUDGED = ("worst", "best")
_DTYPES = ("f32", "bf16", "f16", "auto")
_DTYPES_TO_COME = {"fp16": "it is named f16", "int8": "this version has no kernels of that type"}
_OTHER_DEVICES = {"gpu": "GPUs are named cuda, cuda:1 and so on"}

# How fast and where a run is done, not what it is: a run continues when one of these changes.
_NOT_DEFINING = frozenset(
    {
        *("out", "parallel", "address", "host", "hosts", "host_weights", "database"),
        *("train_device", "since"),
    }
)
ALL_HOSTS = "all"
_LONGEST_KEY = 64
# Keys that may name a file; the file's content is part of what the run is.
_FILE_KEYS = ("model", "data", "weights", "space", "recipe")


def _by(read: Reader) -> BeforeValidator:
    def validate(value: Any, info: ValidationInfo) -> Any:
        key = info.field_name or "value"
        return read(value, (info.context or {}).get(key, key))

    return BeforeValidator(validate)


OptionalText = Annotated[str | None, _by(values.optional(values.text))]
Globs = Annotated[tuple[str, ...], _by(values.globs)]


def _device(value: Any, name: str) -> str:
    kind = kind_and_number(value)[0] if isinstance(value, str) else value
    values.choice((AUTO, *kind_names()), _OTHER_DEVICES)(value if kind == AUTO else kind, name)
    return str(value)


def _host(value: Any, name: str) -> str:
    given = values.text(value, name)
    file = given.removeprefix(RECORDED)
    return given if file == given else f"{RECORDED}{values.input_path(file, name)}"


class SearchConfig(BaseModel):
    """All settings of one search, frozen.

    Files that a run reads are held by their absolute paths: work goes on in other processes, and later
    from other folders.

    Attributes:
        model: zoo name, ``path/to/file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or ``hf:ID``.
        weights: file of dense weights; None trains a dense baseline first, once.
        data: ``digits``, ``fashion-mnist:PATH``, ``cifar10:PATH``, ``imagefolder:PATH``,
            ``imagefolder-stream:PATH``, ``shards:PATH`` or
            ``path/to/file.py:factory``.
        data_resolution: pixels per side for training and evaluation; None is the data set's own, at
            least 32.
        latency_budget: microseconds the model may take; None searches the whole front.
        judged: which state of the host the budget's verdict is taken in, where it has several: the
            ``worst``, in which the dense model is slowest, or the ``best``.
        batch_size: samples per timed run.
        input_shape: channels, height and width of a timed sample; None is the model's own.
        dtype: arithmetic type: ``f32``, ``bf16``, ``f16``, or ``auto``, which on processors lets the
            search choose f32 or bf16 per configuration where the host computes in bf16, and is f32
            elsewhere; on GPUs it is bf16.
        compact_weights: leave out kernels that keep transformed weights: less memory, some speed lost.
        threads: worker threads of a timed run; ``auto`` is every usable core.
        device: where latencies are measured: ``auto`` or ``cpu``, ``cuda``, ``cuda:1`` and so on.
        trials: configurations the study may try; None is what the search space says.
        time_budget: microseconds the whole run may take; None is no limit.
        parallel: evaluations at a time; None is as many as there are cores.
        seed: of everything random.
        study_name: name of the Optuna study; None derives it from the run.
        storage: URL of the Optuna storage; None is a file in the run folder.
        database: URL of the tuning database; None is the one in AUTOSPARSE_HOME.
        address: Ray cluster to join; None starts Ray here and stops it at the end.
        host: what measures: ``here``, or a node of the cluster, as its address, ``node:HOSTNAME``, or
            ``hardware:ID`` for an idle one of that hardware.
        hosts: hardware ids of the cluster that are searched for one after the other, or ``all``; empty
            is what `host` names alone.
        host_weights: what a host counts in the mean over hosts, as ``ID=2``; 1 where nothing is said.
        space: name of a shipped search space, or a YAML file; ``auto`` is the one for the device.
        include: patterns of layer names that may be pruned; empty is every layer.
        exclude: patterns of layer names that stay dense.
        top_k: configurations that are promoted to training.
        one_shot: how plans are pruned before any training: ``obs`` reconstructs layers by second-order
            error, ``masks`` only masks.
        train: how promoted configurations are trained.
        recipe: YAML file, or preset, of how exactly; None is the preset of `train`.
        train_device: where: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        train_workers: processes that train one configuration together.
        share_training: whether configurations that differ little share one training.
        share_reach: how far their mean sparsities may differ; None is what the training advises.
        since: earlier finished run to take trainings over from and to compare with: its name, its
            folder, or ``latest`` for the newest one of these very settings; None does all anew.
        out: folder that run folders are made in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, _by(values.model)]
    weights: Annotated[Path | None, _by(values.optional(values.input_path))] = None
    data: Annotated[str, _by(values.data_set)] = "digits"
    data_resolution: Annotated[int | None, _by(values.optional(values.count(8)))] = None
    latency_budget: Annotated[float | None, _by(values.optional(values.duration("5ms")))] = None
    judged: Annotated[str, _by(values.choice(JUDGED))] = "worst"
    batch_size: Annotated[int, _by(values.count(1))] = 1
    input_shape: Annotated[tuple[int, int, int] | None, _by(values.optional(values.shape))] = None
    dtype: Annotated[str, _by(values.choice(_DTYPES, _DTYPES_TO_COME))] = "auto"
    compact_weights: Annotated[bool, _by(values.switch)] = False
    threads: Annotated[int | str, _by(values.count_or("auto", 1))] = "auto"
    device: Annotated[str, _by(_device)] = AUTO
    trials: Annotated[int | None, _by(values.optional(values.count(1)))] = None
    time_budget: Annotated[float | None, _by(values.optional(values.duration("2h")))] = None
    parallel: Annotated[int | None, _by(values.optional(values.count(1)))] = None
    seed: Annotated[int, _by(values.seed)] = 0
    study_name: OptionalText = None
    storage: Annotated[str | None, _by(values.optional(values.url))] = None
    database: Annotated[str | None, _by(values.optional(values.database))] = None
    address: OptionalText = None
    host: Annotated[str, _by(_host)] = HERE
    hosts: Annotated[tuple[str, ...], _by(values.words)] = ()
    host_weights: Annotated[tuple[str, ...], _by(values.words)] = ()
    space: Annotated[str, _by(values.name_or_file(".yaml", ".yml"))] = AUTO
    include: Globs = ()
    exclude: Globs = ()
    top_k: Annotated[int, _by(values.count(1))] = 5
    one_shot: Annotated[str, _by(values.choice(ONE_SHOT))] = "obs"
    train: Annotated[str, _by(values.choice(TRAIN_KINDS))] = "short"
    recipe: Annotated[str | None, _by(values.optional(values.name_or_file(".yaml", ".yml")))] = None
    train_device: Annotated[str, _by(values.text)] = "auto"
    train_workers: Annotated[int, _by(values.count(1))] = 1
    share_training: Annotated[bool, _by(values.switch)] = False
    share_reach: Annotated[float | None, _by(values.optional(values.fraction))] = None
    since: Annotated[str | None, _by(values.optional(values.name_or_file()))] = None
    out: Annotated[Path, _by(values.path)] = Path("results")

    def __init__(self, **given: Any) -> None:
        _build(self, given, {})

    def to_plain(self) -> dict[str, Any]:
        """Gives every key as it would be typed: durations with their unit, paths as text."""
        return {key: _typed_as(key, value) for key, value in self}

    def to_yaml(self) -> str:
        """Gives a file that `resolve` reads back to an equal config."""
        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)

    @staticmethod
    def from_yaml(file: Path | str) -> SearchConfig:
        """Reads a config from a file alone.

        Raises:
            ConfigError: the file is missing, is no YAML mapping, or breaks a rule.
        """
        file = Path(file)
        given = read_file(file)
        return _make(given, {key: f"{file}: {key}" for key in given})

    def fingerprint(self) -> str:
        """Gives a short hash of all that defines the run; equal for the same command on the same files.

        Where results go and how many evaluations run at a time do not count; the content of files does.
        """
        defining = self._defining()
        files = {key: _content_hash(defining[key]) for key in _FILE_KEYS}
        return short_hash([defining, files], 12)

    def weights_of_hosts(self) -> dict[str, float]:
        """Gives the hosts that weigh something of their own: hardware id to weight, above 0.

        Raises:
            ConfigError: one of `host_weights` is no such pair.
        """
        found = {}
        for pair in self.host_weights:
            name, _, text = pair.partition("=")
            try:
                found[name] = float(text)
            except ValueError:
                found[name] = math.nan
            if not name or not 0 < found[name] < math.inf:
                raise ConfigError(
                    f"host_weights must be ID=WEIGHT with a weight above 0, but got {pair!r}; write a "
                    "hardware id, such as 0123456789ab=2"
                )
        return found

    def family(self) -> str:
        """Gives a short hash of the settings that define the run, whatever the files they name hold."""
        return short_hash(self._defining(), 12)

    def _defining(self) -> dict[str, Any]:
        plain = self.to_plain()
        defining = {key: value for key, value in plain.items() if key not in _NOT_DEFINING}
        if self.space == AUTO and self.device in (AUTO, "cpu"):
            defining["space"] = "cpu"  # as it was called before there were others
        if self.host.startswith(RECORDED):  # nothing is run there, so it is another run
            defining["host"] = self.host
        return defining


def resolve(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> SearchConfig:
    """Puts a config together: flag over environment over file over default.

    Args:
        flags: key to value; None and empty lists are flags not given.
        environ: the process's environment.
        file: a YAML file, or None.

    Raises:
        ConfigError: an unknown key anywhere, a value that breaks its rule, or no model.
    """
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    if file is not None:
        given = dict(read_file(file))
        names = {key: f"{file}: {key}" for key in given}
    for key, (variable, value) in _environment(environ).items():
        given[key], names[key] = value, variable
    for key, value in flags.items():
        if value is not None and value not in ((), []):
            given[key], names[key] = value, flag(key)
    if "model" not in given:
        raise ConfigError("a model must be named, but none was; write --model resnet18")
    return _make(given, names)


def validate(config: SearchConfig, *, writing: bool = True) -> None:
    """Refuses what cannot work, in well under two seconds and before any work: torch stays unimported.

    Args:
        config: what was asked for.
        writing: a run will be made: make sure of its folder by making it. False writes nothing.

    Raises:
        ModelError: no such model, or its weight file is missing, damaged or something else.
        DataError: the data set is missing or truncated.
        ConfigError: the search space breaks a rule, a URL or a thread count cannot be meant, or this
            host, if it measures, does not compute in the type.
        RunError: the results folder, AUTOSPARSE_HOME or the folder of a database cannot be written, or
            the run to take over from is not there or unfinished.
        MissingDependency: a library that the model needs is not installed, this host, if it measures,
            has no such device, or no Ray cluster answers at the address.
    """
    models.check_source(config.model)
    if config.weights is not None:
        check_weights(config.weights)
    data.check_source(config.data)
    if config.space != AUTO:
        spaces.load(config.space)
    if config.host == HERE and not config.hosts:  # what nodes of a cluster can do is asked there
        _check_threads(config.threads)
        _check_device(config.device)
        _check_dtype(config.dtype, config.device)
    _check_storage(config.storage)
    _check_database(config.database)
    check_host(config.host, config.address)
    _check_hosts(config)
    check_address(config.address)
    if writing:
        home()
    else:
        check_writable(home_folder(), "AUTOSPARSE_HOME")
    _check_since(config)
    check_latest(config.out)
    (writable_folder if writing else check_writable)(config.out, "the results folder")


def _check_hosts(config: SearchConfig) -> None:
    if config.hosts and config.host != HERE:
        raise ConfigError(
            f"a search is for one host or for several, but got host {config.host} and hosts "
            f"{', '.join(config.hosts)}; leave one out"
        )
    if config.hosts != (ALL_HOSTS,):
        for name in config.hosts:
            check_host(f"{HARDWARE}{name}", config.address)
    elif config.address is None:
        raise ConfigError("hosts are nodes of a cluster, but none is joined; add --address HOST:6379")
    if config.host_weights and not config.hosts:
        raise ConfigError(
            f"host_weights go with hosts, but got {', '.join(config.host_weights)} alone; add --hosts"
        )
    config.weights_of_hosts()


def _check_threads(threads: int | str) -> None:
    usable = hardware.usable_cores()
    if isinstance(threads, int) and threads > usable:
        raise ConfigError(
            f"threads must be at most the {usable} cores this process may use, but got {threads}; "
            "leave --threads out to use them all"
        )


def _is_processor(device: str) -> bool:
    return kind_and_number(device)[0] in (AUTO, "cpu")


def _check_device(device: str) -> None:
    if not _is_processor(device):  # every host has one
        from autosparse.devices.device import find  # loads the kernels of every kind

        find(device)


def _check_dtype(dtype: str, device: str) -> None:
    if dtype == AUTO or (dtype == "f32" and _is_processor(device)):  # auto takes what there is
        return
    from autosparse.devices.device import find  # loads the kernels of every kind

    found = find(device)
    if why := found.why_no_dtype(dtype):
        raise ConfigError(
            f"dtype must be one that the device computes in, but got {dtype}: {why}; write "
            f"--dtype {found.usual_dtypes[0]}, or auto to take what there is"
        )


def _check_storage(url: str | None) -> None:
    if url is None:
        return
    try:
        parsed = parse_url(url if "://" in url else f"{url}://")
    except DatabaseError:
        raise ConfigError(
            f"storage must be a URL that Optuna takes, but got {url!r}; write sqlite:///study.db"
        ) from None
    check_file(parsed, "storage")


def _check_database(url: str | None) -> None:
    if url is not None:
        check_file(parse_url(url), "database")


def _check_since(config: SearchConfig) -> None:
    if config.since in (None, LATEST):  # of the newest one there may be none yet
        return
    run = find_run(config.out, str(config.since))
    state = read_state(run)
    if state.status not in FINISHED:
        raise RunError(
            f"since must be a finished run, but {run.name} is {state.status}; run its search again to "
            "finish it, or name another"
        )


def flag(key: str) -> str:
    """Gives the flag of a key: ``latency_budget`` is ``--latency-budget``."""
    return "--" + key.replace("_", "-")


def variable(key: str) -> str:
    """Gives the environment variable of a key."""
    return _OTHER_NAMES.get(key, PREFIX + key.upper())


def read_file(file: Path) -> Mapping[str, Any]:
    """Reads the keys of a config file.

    Raises:
        ConfigError: it is missing, no YAML mapping, or has a key nobody knows.
    """
    try:
        found = read_yaml(file)
    except (OSError, YamlError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"a config must be a readable YAML file, but got {file}: {reason}") from None
    if not isinstance(found, dict):
        kind = "nothing" if found is None else type(found).__name__
        raise ConfigError(
            f"a config must be a mapping of keys to values, but {file} holds {kind}; "
            "write lines such as model: resnet18"
        )
    for key in found:
        _refuse_unknown(key, SearchConfig.model_fields, f"{file}: a config key")
    return found


def _environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    keys = {variable(key): key for key in SearchConfig.model_fields}
    found: dict[str, tuple[str, str]] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        _refuse_unknown(name, [*keys, *OTHER_VARIABLES], "an environment variable of autosparse")
        if value:
            found[keys[name]] = (name, value)
    return found


def _refuse_unknown(name: object, known: Iterable[str], what: str) -> None:
    choices = list(known)
    if name in choices:
        return
    near = difflib.get_close_matches(str(name)[:_LONGEST_KEY], choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(choices)}"
    shown = name if isinstance(name, str) and len(name) <= _LONGEST_KEY else got(name)
    raise ConfigError(f"{what} must be one that exists, but got {shown}; {hint}")


def _make(given: Mapping[str, Any], names: Mapping[str, str]) -> SearchConfig:
    made = SearchConfig.__new__(SearchConfig)
    _build(made, given, names)
    return made


def _build(made: SearchConfig, given: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for key in given:
        _refuse_unknown(key, SearchConfig.model_fields, "a key of a search")
    try:
        made.__pydantic_validator__.validate_python(
            dict(given), self_instance=made, context=dict(names)
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "missing":
            raise ConfigError(f"{names.get(key, key)} must be given, but was not") from None
        raise ConfigError(
            f"{names.get(key, key)}: {first['msg']}, but got {got(first['input'])}"
        ) from None


def _typed_as(key: str, value: Any) -> Any:
    if key in ("latency_budget", "time_budget") and value is not None:
        return values.exact_duration(value)
    if key == "input_shape" and value is not None:
        return "x".join(map(str, value))
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _content_hash(named: str | None) -> str | None:
    """Hash of the file a key names, also as ``file.py:factory``; None where it names no file."""
    if not named:
        return None
    file = Path(os.path.expanduser(named.rpartition(":")[0] if ".py:" in named else named))
    if not os.path.isfile(file):
        return None
    with opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
