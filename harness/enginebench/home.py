"""Where enginebench keeps what it fetches and makes: one folder, movable by one environment variable.

It knows neither what lies in the folder nor when it may be deleted; everything in it can be made again.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "ENGINEBENCH_HOME"


def home() -> Path:
    """The folder named by ENGINEBENCH_HOME, else the user's cache folder. It need not exist yet."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("enginebench"))
