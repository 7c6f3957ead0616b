"""The service's log: one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from vidseek_media.urls import without_secrets

FACTS = ("request_id", "method", "route", "status", "milliseconds")
"""What a line may have beside its time, level and message."""


class JsonLines(logging.Formatter):
    """A record as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": without_secrets(record.getMessage())}
        line |= {name: getattr(record, name) for name in FACTS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True)


class _OfServer(logging.Filter):
    """Lets through what the server itself logs, without secrets of URLs; not faults of ours, which we log with their ids."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged."""
        message = record.getMessage()
        if message.startswith("Exception in ASGI application"):
            return False
        record.msg, record.args = without_secrets(message), ()
        return True


def write_json_lines() -> None:
    """Send what `vidseek` logs to stderr, and nowhere else; the server's own lines lose what is secret of URLs."""
    logging.getLogger("uvicorn.error").addFilter(_OfServer())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("vidseek")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that is broken
