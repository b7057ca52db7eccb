"""Apps of one interface behind the other: WSGI apps on threads, ASGI apps on a loop, and their lifespans."""
