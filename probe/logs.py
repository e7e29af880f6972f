"""How the prober logs: one line per event on stderr, its name first, then key=value.

Called once by the commands that run as a daemon. stdout belongs to the command's answer.
"""

import logging
import sys

import structlog


def configure() -> None:
    """Send log lines to stderr; values that hold spaces or control characters are quoted."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
