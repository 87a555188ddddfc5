"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How quickly examples come says something of the machine and what else runs on it, nothing of the code.
settings.register_profile("falcon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("falcon")
