"""The records that cross the border between two stages. Read this folder first.

All are frozen, hold plain values only, check themselves, and travel as JSON: over Ray, into files,
and, one day, over HTTP. Units are in the names; `sparsity` is always the fraction of zeros in [0, 1].

    hardware  -> HardwareProfile
    models    -> LayerInfo (a name and a LayerShape, or the reason why it stays dense)
    search    -> LayerChoice, Plan
    tuning    -> Measurement
    search    -> Configuration (a plan with what is known of it)
"""

from autosparse.patterns.pattern import DENSE, Pattern, kept_blocks, onexn
from autosparse.records.hosts import CpuProfile, GpuProfile, HardwareProfile
from autosparse.records.layers import Activation, LayerChoice, LayerInfo, LayerShape
from autosparse.records.measurements import LatencyOption, Measurement, MeasurementKey, Status
from autosparse.records.results import (
    HOST_STATES,
    Accuracy,
    AccuracyKind,
    AccuracySource,
    SplitName,
    WholeLatency,
)
from autosparse.storage.serial import Record, short_hash

__all__ = [
    "DENSE",
    "HOST_STATES",
    "Accuracy",
    "AccuracyKind",
    "AccuracySource",
    "Activation",
    "CpuProfile",
    "GpuProfile",
    "HardwareProfile",
    "LatencyOption",
    "LayerChoice",
    "LayerInfo",
    "LayerShape",
    "Measurement",
    "MeasurementKey",
    "Pattern",
    "Record",
    "SplitName",
    "Status",
    "WholeLatency",
    "kept_blocks",
    "onexn",
    "short_hash",
]
