"""What a store answers where it does not do what it was asked, in the words of who sits at the microscope."""

from __future__ import annotations

import re

__all__ = ["Fault", "fault_of", "fault_of_file"]

_DENIED = {
    "InvalidAccessKeyId": "does not know the key AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "does not accept AWS_SECRET_ACCESS_KEY: it is not the one of AWS_ACCESS_KEY_ID",
    "ExpiredToken": "says that the credentials have expired: set new AWS_* variables",
    "InvalidToken": "does not accept AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "says that this computer's clock is wrong: set the time",
}


class Fault(Exception):
    """Why something could not be put.

    Attributes
    ----------
    kind : str
        ``"network"`` and ``"busy"`` pass by themselves, ``"refused"`` does not, ``"file"`` is about one file only.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def fault_of(error: BaseException, bucket: str, where: str) -> Fault:
    """Return what an error of the library means, in a line.

    Parameters
    ----------
    error
    bucket, where
        Name of the bucket, and of the computer that has it.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error
    text = str(error)
    code = found[1] if (found := re.search(r"<Code>(\w+)</Code>", text)) else ""
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else 0
    if code == "NoSuchBucket":
        return Fault("refused", f"there is no bucket {bucket} at {where}. Make it, or give another URL")
    if code in {"PermanentRedirect", "AuthorizationHeaderMalformed"} or "without LOCATION" in text:
        return Fault("refused", f"the bucket {bucket} is in another region: set AWS_REGION")
    if status in {401, 403} or code in _DENIED:
        why = _DENIED.get(code, f"denies access to the bucket {bucket}, or to write there ({code or status})")
        return Fault("refused", f"{where} {why}")
    if status >= 500 or status in {408, 429} or code in {"SlowDown", "RequestTimeout"}:
        return Fault("busy", f"{where} answers {status} {code}".rstrip())
    if status:
        return Fault("file", f"{where} answers {status} {code}".rstrip())
    if "error sending request" in text or "HTTP error" in text or "Generic" in text:
        return Fault("network", f"no connection to {where}")
    return Fault("file", " ".join(text.partition("Debug source")[0].split())[:200])


def fault_of_file(name: str, error: Exception) -> Fault:
    """Return what an error means that came up while a file was put; a Fault is one already."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, OSError):
        return Fault("file", f"{name} cannot be read here: {error.strerror or error}")
    return Fault("file", f"{name}: {type(error).__name__}: {error}")
