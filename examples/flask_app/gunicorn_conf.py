"""How the demo serves its three applications; see `demo.py`."""

worker_class = "gthread"
threads = 8

# A pooled connection of the monolith (4 s idle by default) must not outlive the service's patience.
keepalive = 10

# Nothing in the demo takes longer, and nobody likes to wait after Ctrl-C.
graceful_timeout = 2

# Servers that share a home folder would quarrel about one control socket (gunicorn 25.1 and newer).
control_socket_disable = True
