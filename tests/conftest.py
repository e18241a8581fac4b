"""`toy` and `toy_trial` are material for tests, not suites. How long an example takes says nothing here."""

from hypothesis import settings

collect_ignore = ["toy", "toy_trial"]
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
