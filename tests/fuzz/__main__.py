"""Random flags, configurations, environments and files against every verb: `python -m tests.fuzz`.

    python -m tests.fuzz --count 10000 --seed 0        all of it; ends with 1 if anything failed
    python -m tests.fuzz --seed 0 --only 1234 --keep   one case, its folder left behind

No call may end in a traceback, with exit code 1 or another that is not documented, in more than a few
lines of words, with control characters in them, or not at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.worker import LIMIT_S, serve

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Runs what was asked for; gives the exit code."""
    asked = _arguments()
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="autosparse-fuzz-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    numbers = (
        [asked.only] if asked.only is not None else list(range(asked.first, asked.first + asked.count))
    )
    if asked.worker:
        serve(asked.seed, numbers, folder, asked.limit, keep=asked.keep)
        return 0
    results = _drive(asked, numbers, folder)
    if not asked.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return _told(results, asked.seed, as_json=asked.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=10_000, help="cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one case to run")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds after which a case hangs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", help="for the files of cases; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave the folder behind")
    parser.add_argument("--json", action="store_true", help="one line of JSON per failure")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _drive(asked: argparse.Namespace, numbers: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Deals the cases out to processes, in order, and starts another process where one has died."""
    results: list[dict[str, Any]] = []
    share = -(-len(numbers) // asked.processes)
    parts = [numbers[start : start + share] for start in range(0, len(numbers), share)]
    threads = [
        threading.Thread(target=_follow, args=(asked, part, folder / str(index), results))
        for index, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results, key=lambda result: int(result["number"]))


def _follow(
    asked: argparse.Namespace, numbers: Sequence[int], folder: Path, results: list[dict[str, Any]]
) -> None:
    first, end = numbers[0], numbers[-1] + 1
    while first < end:
        command = [sys.executable, "-m", "tests.fuzz", "--worker", "--seed", str(asked.seed)]
        command += ["--first", str(first), "--count", str(end - first), "--folder", str(folder)]
        command += ["--limit", str(asked.limit), *(["--keep"] if asked.keep else [])]
        begun: dict[str, Any] = {}
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            words: deque[str] = deque(maxlen=60)
            reader = threading.Thread(target=words.extend, args=(process.stderr,))
            reader.start()
            for line in process.stdout:
                told = json.loads(line)
                if "begun" in told:
                    begun = told
                else:
                    results.append(told)
                    first, begun = told["number"] + 1, {}
                    if told["fault"]:
                        print(f"case {told['number']}: {told['fault']}", file=sys.stderr, flush=True)
            reader.join()
        if first < end:
            if not begun:
                raise RuntimeError("a worker died between cases:\n" + "".join(words))
            said = "".join(words)
            how = "a hang" if "Timeout" in said else f"the process died with {process.returncode}"
            print(f"case {begun['begun']}: {how}", file=sys.stderr, flush=True)
            results.append(
                {
                    "number": begun["begun"],
                    "verb": begun["verb"],
                    "code": None,
                    "stderr": said,
                    "seconds": asked.limit,
                    "command": begun["command"],
                    "fault": how,
                }
            )
            first = begun["begun"] + 1


def _told(results: Sequence[dict[str, Any]], seed: int, *, as_json: bool) -> int:
    """Prints counts by verb and exit code, and every failure; gives the exit code."""
    failed = [result for result in results if result["fault"]]
    for result in failed:
        if as_json:
            print(json.dumps(result))
        else:
            print(
                f"\ncase {result['number']} (seed {seed}): {result['fault']}",
                f"\n  {result['command'][:2000]}",
            )
            print("\n".join(f"  | {line}" for line in result["stderr"][-3000:].splitlines()))
    codes = sorted({result["code"] for result in results}, key=str)
    table = Counter((result["verb"], result["code"]) for result in results)
    out = sys.stderr if as_json else sys.stdout
    print(f"\n{'verb':<12}" + "".join(f"{code!s:>7}" for code in codes) + f"{'all':>7}", file=out)
    for verb in sorted({result["verb"] for result in results}):
        counts = [table[verb, code] for code in codes]
        print(
            f"{verb:<12}" + "".join(f"{count:>7}" for count in counts) + f"{sum(counts):>7}", file=out
        )
    totals = [sum(table[verb, code] for verb, at in table if at == code) for code in codes]
    print(f"{'all':<12}" + "".join(f"{count:>7}" for count in totals) + f"{len(results):>7}", file=out)
    print(f"{len(failed)} of {len(results)} cases of seed {seed} failed", file=out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
