"""Writes the schema of the API to docs/openapi.json: ``python -m autosparse.web.schema``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.queue import Queue
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.schedules.store import Schedules
from autosparse.storage.files import write_text
from autosparse.web.app import make_app

FILE = Path(__file__).parent.parent.parent / "docs" / "openapi.json"


def schema_text() -> str:
    """Gives the schema as the file holds it: sorted, so that it changes only where the API does."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        with Store(f"sqlite:///{results / 'jobs.db'}") as store:
            queue = Queue(store)
            place = Place(results=results, database=store.full_url, roots=Roots())
            service = Service(queue=queue, schedules=Schedules(queue), place=place)
            schema = make_app(service, Listening(), token="none").openapi()
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(FILE, schema_text())
