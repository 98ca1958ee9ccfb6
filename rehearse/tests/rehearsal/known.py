"""A server whose losses are known: known.py PORT LEDGER FAULT [pinned]

Each third request (or connection, where the fault is one of connections) ends as FAULT says; LEDGER gets what was done, as JSON. The
first request is answered well: by it the server is found ready. On TERM it serves for three more seconds, with "pinned" also
for as long as a connection is open, so that nothing is lost but what it loses on purpose. "closing": from TERM on it closes after each answer."""

import asyncio
import json
import os
import re
import signal
import socket
import struct
import sys

PORT, LEDGER, FAULT = int(sys.argv[1]), sys.argv[2], sys.argv[3]
PINNED = "pinned" in sys.argv[4:]
BODY = b"x" * 600
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n258\r\n" + BODY + b"\r\n"

done = {"answered": 0, "faults": 0, "faulty_posts": 0}
connections = requests = reused = 0
open_now = set()
closing = False


def wanted(place):
    """Whether this one is to fail: of connections their first request, of reused ones any that is not the first, of all any."""
    global reused
    if requests == 1:
        return False
    if FAULT in ("reset", "close"):
        return place == 1 and connections % 3 == 0
    if FAULT == "reused":
        reused += place > 1
        return place > 1 and reused % 3 == 0
    return FAULT not in ("perfect", "closing") and requests % 3 == 0


async def fail(writer):
    """One answer that is none; returns whether the connection goes on."""
    done["faults"] += 1
    if FAULT in ("reset", "reused"):
        # A RST, and not a FIN.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    if FAULT == "stall":
        await asyncio.sleep(3600)
    answers = {
        "close": b"",
        "cut": HEAD + BODY[:300],
        "cut-chunks": CHUNKED,
        "cut-head": HEAD[:20],
        "error": HEAD.replace(b"200 OK", b"500 Oops") + BODY,
        "garbage": b"220 this is another protocol\r\n\r\n",
        "unmarked": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    }
    writer.write(answers[FAULT])
    await writer.drain()
    return FAULT == "error"


async def talk(reader, writer):
    global connections, requests
    connections += 1
    place = 0
    open_now.add(writer)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            requests += 1
            place += 1
            if wanted(place):
                done["faulty_posts"] += head.startswith(b"POST")
                if not await fail(writer):
                    break
                continue
            writer.write(CHUNKED + b"0\r\n\r\n" if requests % 2 else HEAD + BODY)
            await writer.drain()
            done["answered"] += 1
            if closing or b"connection: close" in head.lower():
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        open_now.discard(writer)
        writer.close()


def end():
    # Idle pools stay open until we end; others ask until they are closed.
    if PINNED and open_now:
        asyncio.get_running_loop().call_later(0.1, end)
        return
    with open(LEDGER, "w") as ledger:
        json.dump(done, ledger)
    os._exit(0)


def close_from_now_on():
    global closing
    closing = FAULT == "closing"


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: (close_from_now_on(), loop.call_later(3, end)))
    await asyncio.start_server(talk, "127.0.0.1", PORT, backlog=1000)
    await asyncio.sleep(3600)


asyncio.run(main())
