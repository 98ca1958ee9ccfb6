"""ASGI: thinks for ?ms= milliseconds, then answers."""
import asyncio
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(int(parse_qs(scope["query_string"].decode()).get("ms", ["0"])[0]) / 1000)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"whole\n"})
