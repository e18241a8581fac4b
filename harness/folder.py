"""A run's folder: when it began, what it is, and the commit; made, so that no two runs share one."""

from __future__ import annotations

import datetime
from pathlib import Path

from .catalog import Refused
from .machine import git_state

MOST = 100  # runs of one second


def new_folder(runs: Path, what: str, root: Path) -> Path:
    """Make `runs`/time-what-commit, the commit that of the checkout `root`, with a number where that is taken.

    Raises Refused where none can be made.
    """
    name = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{what}-{git_state(root)['commit'] or 'nocommit'}"
    for number in range(1, MOST):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise Refused(f"{runs} cannot be written: {error.strerror}; give --runs another folder") from error
        return folder
    raise Refused(f"{runs} has a hundred runs of this second already")
