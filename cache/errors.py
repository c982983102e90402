"""The one exception tree. A message says what was asked, what was found and what to do next.

PgMError                    exit code 1
├── UserError               exit code 2: the request cannot be met as it was made
│   ├── NotFound                a dataset, store, run, file or column that is not there
│   ├── SampleUnavailable       a row out of range, or a sample whose modality failed or is missing
│   └── IdentityMismatch        a store or a run is not what was asked for
└── RunFailed               exit code 1: the work was started and could not be finished
    ├── CorruptStore            bytes on disk are not the bytes that were written
    ├── RunLocked               another live process trains this run
    └── TooManyFailures         more bad items than the threshold allows
"""


class PgMError(Exception):
    """Root of every error this package raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class UserError(PgMError):
    """The request cannot be met as it was made."""

    exit_code = 2


class NotFound(UserError):
    """Something that was named is not there."""


class SampleUnavailable(UserError, IndexError):
    """A row is out of range, or the sample's modality failed or is missing."""


class IdentityMismatch(UserError):
    """A store or a run is not what was asked for."""


class RunFailed(PgMError):
    """Work was started and could not be finished; what was written stays."""


class CorruptStore(RunFailed):
    """Bytes on disk are not the bytes that were written."""


class RunLocked(RunFailed):
    """Another live process trains this run."""


class TooManyFailures(RunFailed):
    """More bad items than the threshold allows."""
