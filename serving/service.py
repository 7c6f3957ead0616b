"""The BentoML service that the routes are mounted in: `vidseek serve` and `bentoml serve` both start this."""

from __future__ import annotations

import os
from typing import Any

os.environ["BENTOML_DO_NOT_TRACK"] = "true"  # an archive tool does not phone home; read once, so before the import

import bentoml
from bentoml._internal.utils.analytics import usage_stats

from serving.app import create_app
from serving.engine import Engine, open_archive
from serving.middleware import First
from vidseek.archive import Archive

# `bentoml serve` has asked the switch, and remembered the answer, before it imported this.
usage_stats.do_not_track.cache_clear()

archive = Archive.here()
settings = archive.settings()
engine = Engine(lambda: open_archive(archive, settings), settings.serve)
app = create_app(engine)


class Holder:
    """Holds nothing itself: BentoML brings the process, metrics and packing."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Open bundle and index; where that fails, /readyz says why."""
        await engine.open()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the threads go."""
        engine.close()


Vidseek: Any = bentoml.service(
    name="vidseek",
    workers=1,
    traffic={"timeout": settings.serve.timeout_seconds + 30},  # ours ends first, with a message that says so
)(Holder)
Vidseek.mount_asgi_app(app, name="vidseek")
# BentoML's own routes come before mounted ones: its /healthz and /readyz know of neither bundle nor index, and its 404
# is not of our shape.
Vidseek.add_asgi_middleware(First, first=app, left=frozenset({"/livez", "/metrics", "/schema.json"}))
