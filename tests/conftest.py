"""What all tests share: properties that take their time on a busy machine are no failures."""

from hypothesis import HealthCheck, settings

settings.register_profile("gristmill", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gristmill")
