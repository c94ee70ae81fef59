"""How Hypothesis works here: without deadlines, which a busy machine misses, and briefly where a package is built."""

import os

from hypothesis import HealthCheck, settings

usual = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", usual)
# Where a package is built, the same cases are tried each time: it must not fail at random.
settings.register_profile(
    "package",
    usual,
    max_examples=10,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))
