"""The limit of open files, of which a load needs one per connection."""

import resource
from typing import Final

from enginebench.errors import UserError
from enginebench.loadgen.request import LoadSpec

SPARE_FILES: Final = 64
"""Open files for the rest of the process, in addition to one connection per stream."""


def allow_open_files(spec: LoadSpec) -> None:
    """Raise the soft limit of open files to what the load needs. UserError if the hard limit is lower.

    The default soft limit of 1,024 is too low for 1,024 streams, and reaching it would look like a server that refuses connections. An
    open loop without a concurrency limit may need one connection per request; it gets as many as the hard limit allows.
    """
    needed = (spec.concurrency or len(spec.requests)) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        if spec.concurrency:
            message = f"{spec.concurrency} streams need {needed} open files, but the hard limit is {hard}"
            raise UserError(message, advice=f"ulimit -Hn {needed}")
        needed = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
