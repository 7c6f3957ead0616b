"""A server of files on the loopback, that remembers what it was asked."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path


class Server:
    """Files of a folder over HTTP on the loopback, and the requests that came."""

    def __init__(self, root: Path) -> None:
        self.asked: list[tuple[str, str]] = []
        self.status: dict[str, int] = {}
        asked, status = self.asked, self.status

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def send_head(self):  # type: ignore[no-untyped-def]
                asked.append((self.command, self.path))
                if (said := status.get(self.path.partition("?")[0])) is not None:
                    self.send_error(said)
                    return None
                return super().send_head()

        handler = functools.partial(Handler, directory=str(root))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def loaded(self) -> list[str]:
        """Paths of videos that were read, not only asked about."""
        return [path for command, path in self.asked if command == "GET" and path.endswith(".mp4")]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
