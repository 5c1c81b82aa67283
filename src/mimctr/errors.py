"""Every error this package raises on purpose.

* MimctrError
  - ConfigError       a setting is missing, unknown or out of range
  - DataError         an input file or table breaks its contract
  - EncoderError      a content encoder cannot be built, loaded or trained
  - RunError          a run folder is damaged, or belongs to another run
  - CenterError       the representation center cannot answer
    . StaleSnapshot   its vectors came from another encoder or another catalogue
"""


class MimctrError(Exception):
    """Base class. The command line prints these on one line, without a traceback."""


class ConfigError(MimctrError, ValueError): ...


class DataError(MimctrError, ValueError): ...


class EncoderError(MimctrError): ...


class RunError(MimctrError): ...


class CenterError(MimctrError): ...


class StaleSnapshot(CenterError): ...
