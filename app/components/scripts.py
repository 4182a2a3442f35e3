"""The page's ES modules: which there are, at which address they are served, how a page loads them.

The address holds a hash of all their contents, and modules import one another by relative paths: a
browser may keep them for ever, and never mixes two versions. Nothing but these files is served.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import posixpath
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

_APP = Path(__file__).parent.parent
_IMPORTED = re.compile(r'^(?:import|export)\b[^"]*? from "(\.[^"]+)";', re.MULTILINE)
PLOTLY = "components/plotly.min.js"
"""Where the page finds Plotly's own script."""


@cache
def files() -> dict[str, Path]:
    """Return the scripts by the paths under which they are served: those of the app, and Plotly's.

    The package plotly brings its script along, so that the page asks no other machine for it.
    """
    found = {path.relative_to(_APP).as_posix(): path for path in sorted(_APP.rglob("*.js"))}
    plotly = importlib.util.find_spec("plotly")
    if plotly and plotly.origin:
        found[PLOTLY] = Path(plotly.origin).parent / "package_data" / "plotly.min.js"
    return found


@cache
def prefix() -> str:
    """Return the path below which the scripts are served."""
    digest = hashlib.sha256()
    for name, path in files().items():
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"/scripts/{digest.hexdigest()[:16]}"


def routes() -> list[Route]:
    """Return the route that serves the scripts, for the app's server."""

    async def serve(request: Request) -> Response:
        path = files().get(request.path_params["name"])
        if path is None:
            return Response(status_code=404)
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, media_type="text/javascript", headers=kept)

    return [Route(prefix() + "/{name:path}", serve)]


def modules(entry: str) -> list[str]:
    """Return a module and all that it imports, directly or not; itself first."""
    found = [entry]
    for name in found:
        for other in _IMPORTED.findall(files()[name].read_text("utf-8")):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), other))
            if path not in found:
                found.append(path)
    return found


def call(module: str, function: str, *given: Any) -> str:
    """Return the ``js`` of an event: calls an exported function with its components' values.

    Args:
        module: path of the module.
        function: name of what it exports.
        *given: arguments before the values, as JSON.
    """
    words = "".join(json.dumps(item) + ", " for item in given).replace("</", "<\\/")
    return (
        "async (...values) => "
        f"(await import({_ROOT} + {json.dumps(f'{prefix()}/{module}')}))"
        f".{function}({words}...values)"
    )


def mounting(entry: str, events: Sequence[str]) -> str:
    """Return the ``js_on_load`` of a component: calls the function `mount` of a module.

    All modules are asked for at once; the browser alone would find them one import after another.

    Args:
        entry: path of the module.
        events: names of the events that it triggers. Gradio takes the words in quotes here for
            names of events, so that no name of a prop may be among them.
    """
    return f"""// Events: {json.dumps(list(events))}
const address = {_ROOT} + {json.dumps(prefix() + "/")};
Promise.all({json.dumps(modules(entry))}.map((name) => import(address + name))).then(
  ([view]) => view.mount({{ element, props, server, trigger, watch }}),
  () => (element.firstElementChild.textContent = "A script did not come: reload the page."),
);"""


# The page may be served below a path of another server.
_ROOT = '(window.gradio_config?.root ?? "")'
