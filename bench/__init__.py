"""Measurements, each a ratio against a peer measured in the same run. `python -m bench` runs them all."""

import nvi.p4rt  # noqa: F401  it settles how gRPC works, before anything imports gRPC
