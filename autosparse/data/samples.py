"""Where encoded images lie in files: a few bytes for each, so that millions fit into memory.

A sample is a range of bytes of a file with a label: a whole picture file, or a member of a tar shard.
Names are packed into one array, because a Python object for each would be copied into every process
that only looks at it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autosparse.storage.files import opened

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Many short texts in two arrays.

    Attributes:
        packed: their bytes, as file names are encoded, one after another.
        ends: where each one ends.
    """

    packed: npt.NDArray[np.uint8]
    ends: Rows

    @classmethod
    def of(cls, texts: Sequence[str]) -> Names:
        """Packs texts."""
        encoded = [os.fsencode(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(packed=np.frombuffer(b"".join(encoded), np.uint8), ends=ends)

    def __getitem__(self, row: int) -> str:
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.packed[start : int(self.ends[row])].tobytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All images of a part of a data set.

    Attributes:
        root: folder of the files.
        files: their paths in it.
        members: name of each image in its file; None where images are whole files.
        file: (n,) the file that each image is in.
        offset: (n,) its first byte there.
        size: (n,) its length, bytes.
        labels: (n,) its class.
    """

    root: Path
    files: Names
    members: Names | None = None
    file: Rows
    offset: Rows
    size: Rows
    labels: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Some images of a listing, in an order.

    Attributes:
        listing: where they lie.
        rows: (n,) which of its images.
    """

    listing: Listing
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Rows:
        """Their classes, (n,)."""
        return self.listing.labels[self.rows]

    def take(self, rows: Rows) -> Samples:
        """Gives some of them, in the order of `rows`."""
        return Samples(listing=self.listing, rows=self.rows[rows])

    def name(self, row: int) -> str:
        """Gives the path of an image, and where it is a part of a file its name there."""
        at = int(self.rows[row])
        path = str(self.listing.root / self.listing.files[int(self.listing.file[at])])
        return path if self.listing.members is None else f"{path}: {self.listing.members[at]}"

    def read(self, row: int) -> bytes:
        """Reads the encoded bytes of an image.

        Raises:
            OSError: its file is missing or unreadable.
        """
        listing, at = self.listing, int(self.rows[row])
        with opened(listing.root / listing.files[int(listing.file[at])]) as stream:
            stream.seek(int(listing.offset[at]))
            return stream.read(int(listing.size[at]))

    def fingerprint(self) -> str:
        """Gives a hash of names, places, sizes, labels and order, not of what is in the files."""
        listing = self.listing
        digest = hashlib.sha256()
        for names in (listing.files, listing.members):
            for array in () if names is None else (names.packed, names.ends):
                digest.update(array.tobytes())
        for array in (listing.file, listing.offset, listing.size, listing.labels, self.rows):
            digest.update(array.astype(np.int64).tobytes())
        return digest.hexdigest()[:16]
