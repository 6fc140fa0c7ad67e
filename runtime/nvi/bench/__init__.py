"""What connections cost on this machine: `nvi bench`, and what the measurements in the repository's `bench/` stand on.

`lab`      namespaces, cables, switches and other processes, which leave nothing behind
`ends`     who talks to whom
`line`     two endpoints with one or two switches between them
`farm`     agents for these switches, with `memory` or `nats` between them
`traffic`  the load generator: a process of its own
`setup`    how fast connections are set up, and how long each takes
"""

import nvi.p4rt  # noqa: F401  it settles how gRPC works, before anything imports gRPC
