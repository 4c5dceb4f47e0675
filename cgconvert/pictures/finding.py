"""The first thread of a run over pictures: which files have no result yet."""

from __future__ import annotations

import time

from cgconvert.pictures.claims import Elsewhere, state_of
from cgconvert.pictures.files import ImageJob, is_finished
from cgconvert.pictures.items import Item
from cgconvert.pictures.run import PATIENCE, ImageRun
from cgconvert.pictures.watch import watched
from cgconvert.scale.marker import write_marker


def find(run: ImageRun) -> None:
    """Put the files that have no result yet; those that another run is at when it is done with them."""
    plan = run.plan
    marked = False
    elsewhere: list[Elsewhere] = []
    there = plan.names()

    def is_done(job: ImageJob) -> bool:
        return not run.watch and is_finished(job, run.options, there)

    found = watched(plan, run.tally.skip, run.tally.fail) if run.watch else plan.jobs(run.tally.failures)
    for job in found:
        run.workers.check()
        if job is None:  # nothing new in a watched folder
            _look_elsewhere(run, elsewhere)
            time.sleep(PATIENCE)
            continue
        if is_done(job):
            run.skip(job)
            continue
        if not marked and plan.folder is not None and plan.output is not None:
            write_marker(plan.output, plan.card, plan.look())
            marked = True
        before = state_of(job.output)
        if not run.claims.take(job.output):
            elsewhere.append(Elsewhere(job, before))
        elif is_done(job):  # since the look before
            run.claims.give_back(job.output)
            run.skip(job)
        else:
            run.jobs.put(Item(job))
    while elsewhere:
        run.workers.check()
        _look_elsewhere(run, elsewhere)
        time.sleep(PATIENCE)
    run.jobs.close()


def _look_elsewhere(run: ImageRun, elsewhere: list[Elsewhere]) -> None:
    """Take those off the list that another run is done with, and convert those that it has left."""
    for other in elsewhere.copy():
        settled = other.settle(run.claims, run.skip)
        if settled is not None:
            elsewhere.remove(other)
        if settled is False:
            run.jobs.put(Item(other.job))
