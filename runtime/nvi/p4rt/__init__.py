"""An agent's session with its switch over P4Runtime (https://p4.org/p4-spec/p4runtime/v1.4.1/P4Runtime-Spec.html).

`messages`     the generated protobuf messages
`pipeline`     the compiled pipeline, and the ids and widths in its P4Info
`wire`         protobuf serializations with holes, to be filled
`codec`        entries, packets and errors <-> P4Runtime messages
`arbitration`  who is primary
`writer`       many callers' updates, in few Write RPCs
`session`      all of them at work on a gRPC channel

Only `session` does I/O.
"""

import os

# gRPC reads this when it is imported: not later than here. Its newer event engine has client calls hop between threads;
# without it a PacketIn takes 30 us of the process's CPU instead of 45 (50 instead of 95 if it comes alone), a Write 130
# instead of 165, a packet-out 40 instead of 50 (grpcio 1.85, x86). Whoever sets the variable otherwise knows better.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # what happens to a connection, the session itself reports
