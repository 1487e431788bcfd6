"""The errors that a user can cause and mend. Anything else that is raised is a bug."""


class NgpError(Exception):
    """What was wrong, where, and what to do, in one line; the command line exits with status 2."""

    said_here: bool = False
    """Of several processes, the one that raised this says it, though it is not the first."""


class ConfigError(NgpError):
    """A setting is out of its range, unknown, or contradicts another."""


class ShapeError(NgpError):
    """An array has the wrong shape, dtype, layout or device."""


class DataError(NgpError):
    """An input file or array cannot be read, or holds nothing that can be fitted."""


class CheckpointError(NgpError):
    """A checkpoint or a run folder is missing, cut short, altered, or of another format."""


class ResourceError(NgpError):
    """Memory, disk space or a device is not there, or an output cannot be written."""


class PeerError(NgpError):
    """Another process of the run has ended it, and says why itself; the command line is silent."""


class LostError(ResourceError):
    """Another process of the run has ended, or does not answer."""
