"""What an upload has come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pellucid.recording.amounts import amount
from pellucid.recording.upload_state import Sent
from pellucid.recording.upload_store import Stored

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """What is in the bucket, as it tells itself where it can be asked.

    Parameters
    ----------
    url
    files, nbytes
        There, of those that were offered or sent before.
    missing
        Name, and why it is not there.
    """

    url: str
    files: int
    nbytes: int
    missing: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls, url: str, sent: Mapping[str, Sent], waiting: Mapping[str, str], there: Mapping[str, Stored] | None
    ) -> Report:
        """Return what has been sent and what waits, held against what the bucket lists, where it could be asked.

        Parameters
        ----------
        url
        sent
            Files, by name.
        waiting
            Name, and why.
        there
            What the bucket lists; None where it does not answer.
        """
        missing, files, nbytes = dict(waiting), 0, 0
        for name, row in sent.items():
            if name in waiting:
                continue
            if there is not None and there.get(name) != (row.size, row.etag):
                missing[name] = "what is there is something else" if name in there else "not there"
                continue
            files, nbytes = files + 1, nbytes + row.size
        return cls(url, files, nbytes, tuple(sorted(missing.items())))

    def lines(self) -> list[str]:
        """Return lines for the user; of many missing files the first ten."""
        told = [f"{self.files} files ({amount(self.nbytes)}) are at {self.url}"]
        if self.missing:
            told.append(f"{len(self.missing)} files are not there:")
            told += [f"  {name}: {why}" for name, why in self.missing[:10]]
            told += ["  ..."] if len(self.missing) > 10 else []
        return told
