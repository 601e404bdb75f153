"""The one exception of our own; every other error is a standard one (see the error table in the reference)."""


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and how to mend it."""
