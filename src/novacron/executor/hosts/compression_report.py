"""What compressing tensors between hosts costs, as it is measured on every step."""

from __future__ import annotations

import logging
from typing import Final

_WORTH_A_LINE: Final = 1.5  # times what was logged last

logger = logging.getLogger(__name__)


class CompressionReport:
    """Logs the worst relative error of `what` when it has grown much."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.worst = 0.0
        self._logged = 0.0

    def see(self, error: float) -> None:
        self.worst = max(self.worst, error)
        if self.worst > self._logged * _WORTH_A_LINE:
            self._logged = self.worst
            logger.warning(
                "activation_compression: %s came with a relative error of %.2g%%, the worst so far",
                self._what,
                100 * self.worst,
            )
