"""How many examples the laws try: 200 each, HYPOTHESIS_EXAMPLES for more."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "strangle",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("strangle")
