"""What recsvc is measured against: servers that do nothing but answer, run in the same way.

``fastapi``  a bare FastAPI route that returns 1.2 KB of ready bytes
``asgi``     the same bytes from a raw ASGI application
``socket``   the same bytes for whatever comes, without HTTP: shows the load generator's own limit

    python loadtests/floors.py fastapi --port 8101
"""

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from fastapi.responses import Response

READY_BYTES = b'{"items":[' + b'{"item_id":"0000000"},' * 53 + b'{"item_id":"0000000"}]}'
assert 1_180 <= len(READY_BYTES) <= 1_220

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def freeze_collector() -> None:
    """Do for the floor what recsvc does for itself, so that the ratio compares the work alone."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def fastapi_app() -> FastAPI:
    """Return the application with one bare route."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.get("/ready")
    async def ready() -> Response:
        return Response(READY_BYTES, media_type="application/json")

    return app


async def asgi_app(scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG001 (ASGI's)
    """Answer any request with the ready bytes."""
    assert scope["type"] == "http"
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(READY_BYTES)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": READY_BYTES})


class SocketReplies(asyncio.Protocol):
    """Replies to every packet as if it were one request."""

    REPLY = (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(READY_BYTES)) + READY_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports inherit from none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 (whatever it is)
        """Reply."""
        self._transport.write(self.REPLY)


async def _serve_socket(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(SocketReplies, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve one floor until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["fastapi", "asgi", "socket"])
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    freeze_collector()
    if arguments.kind == "socket":
        uvloop.run(_serve_socket(arguments.port))
        return
    uvicorn.run(
        fastapi_app() if arguments.kind == "fastapi" else asgi_app,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
