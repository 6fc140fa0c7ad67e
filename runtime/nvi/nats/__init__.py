"""What `nvi.directory.nats` and `nvi.offers.nats` stand on: NATS as it is, nothing beside it.

`layout` says which subject and which bucket holds what, and who may touch it; `connection` keeps an agent connected;
`buckets` makes a farm's buckets; `server` writes the configuration of servers. `docs/nats.md` is the manual.
"""
