"""Run as a program: the modern service, which can be told to fail: `modern.py PORT JOURNAL`.

`GET /control/MODE` sets how it answers from then on: see `MODES`. Whatever the mode, a request is carried out before anything else: an answer that is late, or says 503,
proves nothing about what was done.
"""

import asyncio
import sys
from contextlib import suppress

from service import Journal

# Mode -> the status, and after how many seconds: within the timeout of the table, or long after it.
MODES = {
    "good": (b"200 OK", 0.0),
    "busy": (b"200 OK", 0.1),
    "slow": (b"200 OK", 2.0),
    "unavailable": (b"503 Service Unavailable", 0.0),
}


class Modern:
    def __init__(self, journal):
        self._journal = Journal(journal, "modern")
        self._mode = "good"

    async def serve(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.decode("latin-1"), reader))
                await writer.drain()
        writer.close()

    async def _answer(self, head, reader):
        line, *fields = head.rstrip("\r\n").split("\r\n")
        method, path, _ = line.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (field.partition(":") for field in fields)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status, seconds = b"200 OK", 0.0
        if path.startswith("/control/"):
            self._mode = path.removeprefix("/control/")
            text = b"{}"
        else:
            text = self._journal.execute(method, path, headers.get("x-user", ""), body)
            status, seconds = MODES[self._mode]
        if seconds:
            await asyncio.sleep(seconds)
        # One write: then a kill cuts the answer off before its first byte or not at all.
        return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


async def main(port, journal):
    server = await asyncio.start_server(Modern(journal).serve, "127.0.0.1", int(port), reuse_port=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
