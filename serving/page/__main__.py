"""`python -m serving.page`: the page's server, which `vidseek ui` starts."""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.middleware import Middleware
from streamlit import net_util
from streamlit.starlette import App

from serving.http.safe_headers import PAGE_HEADERS, SafeHeaders
from serving.http.sites import OwnPagesOnly
from serving.page.settings import MAX_UPLOAD_MB, PageSettings
from serving.page.shown import MediaRoutes
from vidseek_media.errors import ConfigError
from vidseek_media.output import printable

SCRIPT = Path(__file__).with_name("script.py")


def main() -> int:
    """Run the page until it is stopped; gives the exit code."""
    try:
        settings = PageSettings.of_environment()
    except ConfigError as error:
        print(f"vidseek: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    stay_silent()
    shown = MediaRoutes(settings)
    around = [Middleware(SafeHeaders, headers=PAGE_HEADERS), Middleware(OwnPagesOnly)]
    app = App(SCRIPT, routes=shown.routes, lifespan=shown.open, middleware=around)
    sys.argv = ["-"]  # else it takes this file for a launcher, and looks beside it
    app.run(config=config_of(settings))
    return 0


def stay_silent() -> None:
    """Keep Streamlit from asking a public server for this machine's address, which no setting of its own turns off.

    It would where it listens at 0.0.0.0, to print it, and where another site opens the page's socket, to compare it.
    """
    net_util.get_external_ip = lambda: None


def config_of(settings: PageSettings) -> dict[str, object]:
    """Streamlit's settings: nothing is sent anywhere, nothing is watched, no traceback is shown."""
    return {
        "server.address": settings.host,
        "server.port": settings.port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": MAX_UPLOAD_MB,
        # A foreign host name that points at this machine (DNS rebinding) gives no access.
        "server.allowedHosts": [] if settings.is_open else ["localhost", "127.0.0.1", "::1"],
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "theme.primaryColor": "#1f5fbf",
    }


if __name__ == "__main__":
    sys.exit(main())
