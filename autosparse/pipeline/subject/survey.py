"""What a run is about, settled once before any work: model, layers, data, host and search space."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autosparse import data, models
from autosparse.config import SearchConfig
from autosparse.data import ImageData
from autosparse.devices import AUTO
from autosparse.devices.device import Device, find
from autosparse.errors import ConfigError, DataError, NoValidConfiguration, UsageError
from autosparse.hosts.host import Host
from autosparse.hosts.opening import open_host
from autosparse.patterns.family import family_of, finest_first
from autosparse.pipeline.subject.arithmetic import F32, Arithmetic, settle
from autosparse.pipeline.subject.traced import trace
from autosparse.plans.plan import by_reason
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, LayerInfo
from autosparse.searching import space as spaces
from autosparse.searching.space import LayerScope, SearchSpace
from autosparse.storage import paths
from autosparse.train.check import check_module
from autosparse.tuning.autotune import TuneRequest
from autosparse.tuning.request import policy_for

# Models made for large images shrink theirs 32-fold; data smaller than this would vanish inside them.
_LEAST_RESOLUTION = 32


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A run's subject.

    Attributes:
        config: what was asked for.
        hardware: the host, with its measured limits.
        device: the one of its devices that latencies are of.
        space: the search space, narrowed by the flags.
        layers: weight-bearing layers at the latency resolution, in the order they run.
        scopes: what each layer may become, or why it stays dense.
        classes: outputs of the model.
        input_shape: channels, height, width of a timed sample.
        data_resolution: height and width of training images.
        threads: worker threads of a timed run.
        database: URL of the tuning database.
        arithmetic: types that configurations may have.
        held: layers whose given weights hold blocks of zeros already, and how many of which.
        foreign: operators for which the model would run through torch, with reason and modules.
        loaded: the data set, at its own resolution if none was asked for.
        host: where is measured.
    """

    config: SearchConfig
    hardware: HardwareProfile
    device: Device
    space: SearchSpace
    layers: tuple[LayerInfo, ...]
    scopes: tuple[LayerScope, ...]
    classes: int
    input_shape: tuple[int, int, int]
    data_resolution: int
    threads: int
    database: str
    loaded: ImageData = field(repr=False, compare=False)
    host: Host = field(default_factory=open_host, repr=False, compare=False)
    arithmetic: Arithmetic = F32
    foreign: tuple[str, ...] = ()
    held: tuple[tuple[str, str], ...] = ()

    def check_native(self) -> None:
        """Refuses a model that would run through torch: zeros save nothing there.

        Raises:
            NoValidConfiguration: names every operator that stands in the way, and its modules.
        """
        if self.foreign:
            raise NoValidConfiguration(
                f"a model must run natively as a whole, but {self.config.model} would run through "
                f"torch, where zeros save no time, because of {'; '.join(self.foreign)}; "
                "replace these operators"
            )

    def check_sparse(self) -> None:
        """Refuses a subject in which no layer can be sparse.

        Raises:
            NoValidConfiguration: names what stands in the way, operators or layers.
        """
        self.check_native()
        if any(choice.sparsity > 0 for scope in self.scopes for choice in scope.choices):
            return
        reasons = by_reason({scope.name: "; ".join(scope.why_dense) for scope in self.scopes})
        raise NoValidConfiguration(
            f"a search needs a layer that can be sparse, but all {len(self.scopes)} of "
            f"{self.config.model} stay dense: {reasons}; change --space, --include or --exclude"
        )

    @property
    def has_tiles(self) -> bool:
        """Whether layers become tiles where they become anything; methods for 1xN train none."""
        patterns = {choice.pattern for scope in self.scopes for choice in scope.choices}
        kinds = {family_of(pattern).contract(pattern).kind for pattern in patterns} - {"dense"}
        return kinds == {"tw"}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Types that configurations may have, f32 first."""
        return self.arithmetic.dtypes

    @cached_property
    def images(self) -> ImageData:
        """The data set at the run's resolution: what is loaded, or once more if that does not fit."""
        channels = self.input_shape[0]
        if (self.loaded.resolution, self.loaded.channels) == (self.data_resolution, channels):
            return self.loaded
        return data.resolve(
            self.config.data,
            resolution=self.data_resolution,
            channels=channels,
            seed=self.config.seed,
        )

    def tune_request(self, dtype: str, time_budget_us: float | None = None) -> TuneRequest:
        """Gives what the tuner has to measure in one dtype."""
        patterns = {
            scope.name: tuple(finest_first(choice.pattern for choice in scope.choices))
            for scope in self.scopes
        }
        return TuneRequest(
            layers=self.layers,
            patterns=tuple(finest_first(itertools.chain(*patterns.values()))),
            layer_patterns=patterns,
            sparsities=self.space.sparsity,
            threads=self.threads,
            dtype=dtype,
            policy=policy_for(self.layers, dtype),
            time_budget_us=time_budget_us,
            compact_weights=self.config.compact_weights,
        )


def survey(
    config: SearchConfig,
    progress: Progress,
    *,
    keep: bool = True,
    evaluates: bool = False,
    trains: bool = False,
    host: Host | None = None,
) -> Survey:
    """Settles what a run is about.

    Args:
        config: what was asked for.
        progress: told how far it is.
        keep: write limits of this machine down if they had to be measured; False writes nothing.
        evaluates: try the model on a few images, so that it is refused now if it cannot be evaluated.
        trains: try a step of training too.
        host: where is measured; None is this machine.

    Raises:
        ConfigError: it is for several hosts.
        UsageError: model, data or space cannot be used as asked.
    """
    if config.hosts:
        raise ConfigError(
            "this is done for one host at a time, and only a search that is no dry run for several, "
            f"but got hosts {', '.join(config.hosts)}; write --host hardware:ID"
        )
    with progress.at("profile"):
        host = host or open_host()
        hardware = host.profile(keep=keep, progress=progress)
        device = find(config.device, hardware)
        if isinstance(config.threads, int):
            device.check_threads(config.threads)
        why_not = _why_not(host, device)
        progress.log(f"{device.kind} {device.id}: {device.name}")
    with progress.at("survey"):
        found = _survey(config, hardware, device, why_not, progress, evaluates=evaluates, trains=trains)
    return dataclasses.replace(found, host=host)


def _survey(
    config: SearchConfig,
    hardware: HardwareProfile,
    device: Device,
    why_not: Mapping[str, str],
    progress: Progress,
    *,
    evaluates: bool,
    trains: bool,
) -> Survey:
    with progress.step("survey", 3) as step:
        images = data.resolve(
            config.data, resolution=config.data_resolution, seed=config.seed, progress=progress
        )
        step.advance(1, f"{config.data}: {len(images.train)} images to train on")
        loaded = models.resolve(
            config.model, classes=images.classes, weights=config.weights, seed=config.seed
        )
        step.advance(1, f"{config.model} is loaded")
        shape = config.input_shape or _image_shape(loaded.input_shape)
        traced = trace(loaded.module, (config.batch_size, *shape), device.kind)
        layers = traced.layers
        arithmetic = settle(config.dtype, device.usual_dtypes, why_not, traced.why_not)
        step.advance(1, f"{len(layers)} layers, computed in {' or '.join(arithmetic.dtypes)}")
    for dtype, why in arithmetic.why_not:
        progress.log(f"no {dtype}: {why}")
    held = tuple(
        (
            name,
            f"the weights given hold {label} already; the dense model is "
            "timed without using these zeros, and so is the layer where a configuration keeps it dense",
        )
        for name, label in (traced.held.items() if loaded.pretrained else ())
    )
    for name, why in held:
        progress.log(f"{name}: {why}")
    named = device.space if config.space == AUTO else config.space
    space = spaces.load(named).narrowed(include=config.include, exclude=config.exclude)
    if space.device != device.kind:
        raise UsageError(
            f"the search space must be for the device that latencies are of, {device.kind}, but "
            f"{named} is for {space.device}; write --device {space.device}"
        )
    threads = config.threads if isinstance(config.threads, int) else device.most_threads
    subject = Survey(
        config=config,
        hardware=hardware,
        device=device,
        space=space,
        layers=layers,
        scopes=space.applicable(layers),
        classes=loaded.classes,
        input_shape=shape,
        data_resolution=config.data_resolution or _resolution(images),
        threads=threads,
        database=config.database or paths.tuning_database_url(),
        loaded=images,
        arithmetic=arithmetic,
        foreign=traced.foreign,
        held=held,
    )
    if evaluates or trains:
        check_module(loaded.module, subject.images.train, loaded.classes, trains=trains)
    return subject


def _why_not(host: Host, device: Device) -> Mapping[str, str]:
    """Gives the types that a device of a host does not compute in, and why."""
    offers = {offer.kind: offer for offer in host.catalogue()}
    return offers[device.kind].why_not


def will_train(config: SearchConfig) -> bool:
    """Whether a search trains: configurations, or the dense weights that were not given."""
    return config.train != "none" or config.weights is None


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DataError(f"a model must take images (channels, height, width), but takes {shape}")
    return shape[0], shape[1], shape[2]


def _resolution(images: ImageData) -> int:
    return max(int(images.resolution), _LEAST_RESOLUTION)
