"""How Hypothesis works here: without deadlines, which a busy machine misses."""

from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
