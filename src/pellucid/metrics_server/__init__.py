"""What a running session counts, for Prometheus: read when somebody asks, so that a frame costs nothing more."""

from __future__ import annotations

from pellucid.metrics_server.server import MetricsServer

__all__ = ["MetricsServer"]
