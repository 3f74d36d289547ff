"""A real S3 server on this machine whose answers can be made to fail, and a store that fails without a server."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

BUCKET = "bucket"
UNAVAILABLE, FORBIDDEN, SLOW, LOST, REPORTED = "503", "403", "timeout", "lost", "reported"


class S3Server:
    """moto's S3, behind a layer that counts requests and makes some of them fail.

    Attributes
    ----------
    fault
        What goes wrong with a request (method, path): one of the constants above, or None.
    requests
        Number of requests by method.
    """

    def __init__(self) -> None:
        from moto.server import create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"  # A connection is for many requests.

        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.requests: Counter[str] = Counter()
        self._app = create_backend_app("s3")
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def options(self) -> dict[str, Any]:
        """Storage options for this server, of a client that gives up soon."""
        patience = {"retries": {"max_attempts": 1}, "read_timeout": 1, "connect_timeout": 5}
        return {"endpoint_url": self.url, "key": "any", "secret": "any", "config_kwargs": patience}

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests[method] += 1
        fault = self.fault(method, path)
        if fault == SLOW:
            time.sleep(1.5)
        if fault in (None, SLOW):
            return self._app(environ, start_response)
        if fault == REPORTED:
            list(self._app(environ, lambda *_: lambda _: None))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status = {LOST: "200 OK", FORBIDDEN: "403 Forbidden"}.get(fault, "503 Slow Down")
        start_response(status, [("Content-Length", "0"), ("ETag", '"0"')])
        return [b""]

    @contextlib.contextmanager
    def running(self) -> Iterator[S3Server]:
        """The server, with an empty bucket."""
        import s3fs
        from moto.backends import get_backend

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._thread.start()
        try:
            # Servers of one process share what they hold.
            get_backend("s3").reset()
            s3fs.S3FileSystem(**self.options).mkdir(BUCKET)
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def failing(share: float, kinds: Iterable[str], seed: int) -> Callable[[str, str], str | None]:
    """Faults of a share of all requests, at random; only a PUT is lost, or done and reported as failed."""
    random, names = np.random.default_rng(seed), list(kinds)

    def fault(method: str, path: str) -> str | None:
        chosen = names[random.integers(len(names))] if random.random() < share else None
        return None if chosen in (LOST, REPORTED) and method != "PUT" else chosen

    return fault
