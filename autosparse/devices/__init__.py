"""What models run on, each kind of device behind the same face.

device      what the tuner knows of a device, and nothing of what kind it is
layer       a layer with random contents, for any device to build
verify      outputs against a float64 reference
kinds/      a folder or file per kind of device; it is scanned, so there is no list to edit

Only names are told here: nothing else is loaded, so that settings can be checked at no cost.
"""

from __future__ import annotations

import pkgutil

from autosparse.devices import kinds

AUTO = "auto"
"""The device that is taken where none is named: the host's processor."""


def kind_and_number(name: str) -> tuple[str, int]:
    """Takes the name of a device apart: ``cuda:1`` is the second of its kind on its host."""
    kind, _, number = name.partition(":")
    return (kind, int(number)) if number.isdecimal() else (name, 0)


def kind_names() -> tuple[str, ...]:
    """Gives the kinds of devices that can be named, whether or not this host has one."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(kinds.__path__)))
