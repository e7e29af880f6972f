"""What integration tests share: a migrated database of the test's own."""

from tests.fakes.database import (  # noqa: F401 - fixtures of the tests beside
    database,
    database_template,
    database_url,
    service,
)
