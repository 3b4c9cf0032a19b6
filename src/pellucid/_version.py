"""The version, from the installed package's metadata."""

from importlib.metadata import version as _version

version = _version("pellucid")
