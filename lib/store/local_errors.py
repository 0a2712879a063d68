"""What an ``OSError`` of the directory store means: did it happen, and what now."""

from __future__ import annotations

import errno
import os

from headwater.errors import (
    AlreadyExists,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_ALLOWED = {errno.EACCES, errno.EPERM}


def translated(error: OSError, verb: str, key: str, url: str, *, published: bool) -> HeadwaterError:
    """The error to raise for ``verb`` on ``key``; ``published`` says that the file had its name already."""
    what = f"{verb} of {key!r} in {url}"
    why = os.strerror(error.errno) if error.errno else str(error)
    if published:
        # The name is there, and the disk would not say that it stays. A second try tells.
        return Indeterminate(f"The {what} was written but may not be durable: {why}.", token=key)
    if isinstance(error, FileExistsError):
        return AlreadyExists(f"The key {key!r} is taken in {url}.")
    if verb in ("get", "head") and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFound(f"No object {key!r} in {url}.")
    if isinstance(error, NotADirectoryError | IsADirectoryError) or error.errno == errno.ENOTEMPTY:
        return InvalidRequest(
            f"The key {key!r} and another one in {url} would be object and folder of one name, "
            "which no directory holds."
        )
    if error.errno in DISK_FULL:
        return StorageFull(f"The disk is full: the {what} was not applied. Free some space and try again. ({why})")
    if error.errno in NOT_ALLOWED:
        return Forbidden(f"The system does not allow the {what}: {why}. Check owner and mode of the directory.")
    if error.errno == errno.EROFS:
        return Forbidden(f"The file system is mounted read-only, so the {what} was not applied.")
    if error.errno in (errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
        return InvalidRequest(f"The {what} was not applied: the file system has no hard links there ({why}).")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidRequest(f"The {what} was not applied: the path is too long for this file system.")
    return Unavailable(f"The {what} was not applied: {why}.")
