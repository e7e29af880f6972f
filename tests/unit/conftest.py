"""What unit tests share: a real database, since SQLite is no service to wait for."""

from tests.fakes.database import (  # noqa: F401 - fixtures of the tests beside
    database,
    database_template,
    database_url,
    deployment,
    epoch,
    repository,
    service,
)
from tests.fakes.reconcile import ticks  # noqa: F401 - the same
