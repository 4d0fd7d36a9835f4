"""``/docs``: the interactive description of the API, from files of this machine.

FastAPI's own page takes its script from a public network; a shop's servers may not reach it, and a
visitor's browser need not be sent there.
"""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS = "/docs/assets"


def add_docs(app: FastAPI, *, title: str) -> None:
    """Serve the page and what it needs.

    Parameters
    ----------
    app : FastAPI
        Made with ``docs_url=None``.
    title : str
        Title of the page.
    """
    folder = str(files("fastapi_swagger") / "resources")
    app.mount(ASSETS, StaticFiles(directory=folder), name="docs_assets")
    # Nothing is sent to a validator, and a key that was typed in stays in this tab.
    parameters: dict[str, Any] = {"validatorUrl": None, "persistAuthorization": False}
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
        swagger_ui_parameters=parameters,
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page
