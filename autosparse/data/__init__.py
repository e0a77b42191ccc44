"""Where labelled images come from, for training, for accuracy, and for nothing else.

    digits                     1,797 images of 8x8, embedded in scikit-learn; the default
    fashion-mnist:PATH         the four idx files, gzipped or not
    cifar10:PATH               the python pickles, read without running what is in them
    imagefolder:PATH           one folder per class, with or without train, val and test above them
    imagefolder-stream:PATH    the same, decoded as it is used, however much memory there is
    shards:PATH                train-*.tar, val-*.tar, test-*.tar in the layout of WebDataset, likewise
    path/to/file.py:factory    a function that returns `ImageData`, or two or three torch data sets

Every set has three parts. Training trains, validation decides, test only reports; validation is held
out of the training part. To add a kind, put a file with a `KIND` into ``autosparse/data/kinds``.
Importing this package does not import torch; asking it for `resolve` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autosparse.data.sources import check_source, kind_names

if TYPE_CHECKING:
    from autosparse.data.images import ImageData, Split
    from autosparse.data.loading import resolve
    from autosparse.data.split import AnySplit
    from autosparse.data.streams import StreamedSplit

__all__ = [
    "AnySplit",
    "ImageData",
    "Split",
    "StreamedSplit",
    "check_source",
    "kind_names",
    "resolve",
]

_LAZY = {
    "AnySplit": "split",
    "ImageData": "images",
    "Split": "images",
    "StreamedSplit": "streams",
    "resolve": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
