"""Every error this package raises on purpose::

  * MimctrError
    - ConfigError       a setting is missing, unknown or out of range
    - DataError         an input file or table breaks its contract
    - EncoderError      a content encoder cannot be built, loaded or trained
    - RunError          a run folder is damaged, or belongs to another run
    - CenterError       the representation center cannot answer
      . StaleSnapshot   its vectors came from another encoder or another catalogue
      . DamagedRecord   a vector record does not match its checksum, or is not where it belongs
      . DamagedWindow   neither does a window of them
      . Fenced          whoever writes was replaced by another writer
      . StoreUnavailable  a parameter store cannot be reached, or cannot write

Each says in one line what is wrong, and what to do.
"""

from collections.abc import Sequence

MOST_NAMED = 5
"""Things that a message names."""


def first_of(names: Sequence[str]) -> str:
    """Return names for a message: all of a few, else the first with the number of the others."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


class MimctrError(Exception):
    """Base class. The command line prints these on one line, without a traceback."""


class ConfigError(MimctrError, ValueError): ...


class DataError(MimctrError, ValueError): ...


class EncoderError(MimctrError): ...


class RunError(MimctrError): ...


class CenterError(MimctrError): ...


class StaleSnapshot(CenterError): ...


class DamagedRecord(CenterError): ...


class DamagedWindow(CenterError): ...


class Fenced(CenterError): ...


class StoreUnavailable(CenterError): ...
