"""`cgconvert jobs` lists, continues and removes interrupted conversions."""

from __future__ import annotations

from dataclasses import replace

import click

from cgconvert.errors import CgconvertError


@click.group(short_help="List, continue or remove interrupted videos.")
def jobs() -> None:
    """List, continue or remove interrupted conversions of videos.

    A JOB is named by the path of its result, or by the file name alone if no other job has the same.
    """


@jobs.command("list", short_help="List the interrupted videos.")
def list_command() -> None:
    """List the videos whose conversion is not finished."""
    from cgconvert.video.jobs import list_jobs

    found = list_jobs()
    for job in found:
        click.echo(job.describe())
    if not found:
        click.echo("No unfinished videos.")


@jobs.command("resume", short_help="Continue interrupted videos.")
@click.argument("names", nargs=-1, metavar="[JOB]...")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def resume_command(names: tuple[str, ...], quiet: bool) -> int:
    """Continue the JOBs one after the other, or without a name all interrupted ones."""
    from cgconvert.cli.video import convert
    from cgconvert.cli.wording import tell_error
    from cgconvert.video.jobs import find_job, list_jobs
    from cgconvert.video.plan import plan_video

    found = list_jobs()
    chosen = [find_job(found, name) for name in names] or [job for job in found if not job.running]
    if not chosen and not quiet:
        click.echo("No unfinished videos.")
    code = 0
    for job in chosen:
        try:
            options = replace(job.options, restart=False)
            convert(plan_video(job.source, job.output, job.model, options, job.engine), None, quiet)
        except CgconvertError as error:
            if len(chosen) == 1 or error.exit_code == 130:
                raise
            tell_error(error)
            code = 1
    return code


@jobs.command("clean", short_help="Remove what is kept of interrupted videos.")
@click.argument("names", nargs=-1, metavar="[JOB]...")
@click.option("--yes", is_flag=True, help="Remove all without asking.")
def clean_command(names: tuple[str, ...], yes: bool) -> None:
    """Remove what is kept of the JOBs, or without a name of all interrupted ones."""
    from cgconvert.video.jobs import find_job, list_jobs, remove_job

    found = list_jobs()
    chosen = [find_job(found, name) for name in names] or [job for job in found if not job.running]
    if not chosen:
        click.echo("No unfinished videos.")
        return
    if not names and not yes:
        for job in chosen:
            click.echo(job.describe())
        click.confirm("Remove what is kept of these?", abort=True)
    for job in chosen:
        remove_job(job)
        click.echo(f"Removed what was kept of {job.output}")
