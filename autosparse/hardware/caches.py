"""How large a processor's caches are, as Linux says."""

from __future__ import annotations

from pathlib import Path

from autosparse.hardware.cores import ROOT, read_text


def told_cache_sizes(cpu: int, root: Path = ROOT) -> tuple[int, int, int]:
    """Gives the bytes of L1 data, L2 and L3 cache as one processor sees them; 0 where nothing says."""
    sizes = {1: 0, 2: 0, 3: 0}
    for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index[0-9]*")):
        level, kind, size = (read_text(index / name) or "" for name in ("level", "type", "size"))
        if kind != "Instruction" and level.isdigit() and int(level) in sizes:
            sizes[int(level)] = parse_size(size)
    return sizes[1], sizes[2], sizes[3]


def parse_size(text: str) -> int:
    """Reads a size such as ``32K`` or ``1 MiB``; 0 for none."""
    number = text.strip().rstrip("iBb").strip()
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(number[-1:].upper(), 1)
    digits = number.rstrip("KkMmGg").strip()
    return int(float(digits) * scale) if digits else 0
