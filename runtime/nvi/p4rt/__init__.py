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
