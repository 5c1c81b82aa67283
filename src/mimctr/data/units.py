"""How finely a log knows its times."""

import numpy as np
from jaxtyping import Int
from numpy import ndarray

UNIT_NAMES = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}
"""By seconds."""
FEWEST = 10
"""Different times that tell a unit: fewer may share one by chance."""


def time_unit(times: Int[ndarray, "rows"]) -> int:
    """Return the seconds of the unit that a log knows its times to: a day, an hour, a minute, or a second.

    Days may begin at any hour, the midnight of another time zone, and at two: where clocks are changed.

    Args:
        times: Seconds UTC.
    """
    distinct = np.unique(times)
    if len(distinct) >= FEWEST:
        for unit, starts in ((86_400, 2), (3_600, 1), (60, 1)):
            if len(np.unique(distinct % unit)) <= starts:
                return unit
    return 1
