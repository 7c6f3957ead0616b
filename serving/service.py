"""The BentoML service with the routes, started by `vidseek serve` and `bentoml serve`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
"""The repository's root, or `src` of a built bento."""

if find_spec("vidseek") is None:  # in a bento the rooms lie beside, and are not installed
    sys.path.insert(0, str(HERE / "packages"))

os.environ["BENTOML_DO_NOT_TRACK"] = "true"  # an archive tool does not phone home; read once, so before the import

import bentoml

from serving.api.admin import Admin
from serving.app import create_app, key_from_environment
from serving.engine import Base, Engine, Places
from serving.http.limited_protocol import limit_connections
from serving.logs import write_json_lines
from serving.model import open_archive
from vidseek.actions.second_look import SecondLook
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.service import ADMIN_KEY_VARIABLE
from vidseek_media.errors import VidseekError
from vidseek_media.output import printable

# `bentoml serve` has asked the switch, and remembered the answer, before it imported this. The process that answers has
# not, and need not import what asks.
if analytics := sys.modules.get("bentoml._internal.utils.analytics.usage_stats"):
    analytics.do_not_track.cache_clear()


def _opened() -> tuple[Archive, Settings, Engine]:
    archive = Archive.here()
    if (HERE.parent / "bento.yaml").is_file():
        archive = replace(archive, packed_bundle=HERE / "models" / "encoder")
    settings = archive.settings()
    base = Base.of(archive, settings)
    return archive, settings, Engine(
        lambda: open_archive(archive, settings), settings.serve, Places.of(archive), base=base,
        second_look=SecondLook(archive, settings.search.rerank),
    )


write_json_lines()
try:
    archive, settings, engine = _opened()
    admin = Admin(archive, engine)
    app = create_app(
        engine, key=key_from_environment(), admin=admin, admin_key=key_from_environment(ADMIN_KEY_VARIABLE)
    )
except VidseekError as error:  # BentoML imports this: its traceback says nothing to who wrote params.yaml
    sys.stderr.write(f"vidseek: {printable(error.message)}\n  → {printable(error.remedy)}\n")
    sys.exit(error.exit_code)


class Holder:
    """Holds nothing itself: BentoML brings the process, metrics and packing."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Open bundle and index; if this fails, /readyz reports the reason."""
        await engine.open()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the threads go."""
        admin.close()
        engine.close()


Vidseek: Any = bentoml.service(
    name="vidseek",
    workers=1,
    logging={"access": {"enabled": False}},  # ours has the same in one line, with the route in the place of the path
    # What BentoML puts around every request took longer than our routes: spans that nobody reads, figures that our own
    # /metrics has.
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)(Holder)
Vidseek.mount_asgi_app(app, name="vidseek")
connections = limit_connections(app, settings.serve.connections, engine.metrics.note_ended)
engine.metrics.watch_connections(lambda: len(connections))
