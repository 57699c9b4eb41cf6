"""What all tests share."""

from hypothesis import settings

# A busy machine stalls single examples, so none has a deadline. Else as hypothesis sets itself, CI included.
settings.register_profile("blendshard", parent=settings(), deadline=None)
settings.load_profile("blendshard")
