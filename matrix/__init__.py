"""`make matrix`: every kind of way times every kind of traffic, tried packet by packet, and kept in `docs/matrix.md`.

Real agents and the real pipeline, on switches in memory and a virtual clock (`nvi.simulation`). `ways` says who talks
to whom in which farm, `kinds` what is said, `conversation` says it and compares what arrives, `table` shows it.
"""
