"""Logs to standard error: readable lines on a terminal, one JSON object a line elsewhere.

Called once by each process. Log calls must never carry prompts, completions or keys. Libraries may
not say more than info, since at debug they log what they send and receive.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

LogFormat = Literal["auto", "text", "json"]

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send this process's logs of at least `level` to standard error.

    auto: text if standard error is a terminal, else JSON.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_TEXT, "%H:%M:%S") if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(wanted, logging.INFO))
    logging.getLogger("novacron").setLevel(wanted)


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info is not None:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
