"""HTTP as uvicorn speaks it with httptools, with an end to headers.

uvicorn collects headers without a limit before the application, and with it the check of the key,
is asked for the first time.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers exceed MAX_HEADER_BYTES by more than what
    one read brings."""

    _in_headers = False
    _num_header_bytes = 0

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._num_header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers and not self.transport.is_closing():
            self._num_header_bytes += len(data)
            if self._num_header_bytes > MAX_HEADER_BYTES:
                self.send_400_response(f"The headers exceed {MAX_HEADER_BYTES} bytes.")
