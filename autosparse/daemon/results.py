"""What a job gave that can mean something to others, read from where its process left it."""

from __future__ import annotations

import logging
import os

from autosparse.daemon.alerts import Result
from autosparse.daemon.place import RESULT, folder_of
from autosparse.daemon.watches import VERB
from autosparse.errors import RunError, UsageError
from autosparse.jobs.records import Job
from autosparse.jobs.states import State
from autosparse.jobs.verbs import Place
from autosparse.pipeline.results.checked import CheckOutcome
from autosparse.report.moves import FILE, FrontMove
from autosparse.storage.files import read_json

log = logging.getLogger(__name__)


def telling_result(job: Job, state: State, run: str, place: Place) -> Result:
    """Gives what a job gave, as far as it can mean something; None if it gave nothing of the kind.

    Args:
        job: whose process has ended.
        state: that it comes to.
        run: name of its run; empty without.
        place: where jobs work.
    """
    if state not in (State.DONE, State.INFEASIBLE):
        return None
    try:
        if job.request.verb == VERB:
            return CheckOutcome.from_json(read_json(folder_of(place.results, job.id) / RESULT))
        # Of the run, not the job's output: a process that was killed after its run ended gave none.
        moved = place.results / run / FILE
        if job.request.verb == "search" and run and os.path.isfile(moved):
            return FrontMove.from_json(read_json(moved))
    except (RunError, UsageError) as error:
        log.warning("what job %d gave cannot be read: %s", job.id, error)
    return None
