"""`make fuzz`: farms under faults, each made of a seed, checked against the invariants (docs/simulation.md).

Real agents and the real pipeline, on switches in memory and a virtual clock (`nvi.simulation`). `plan` makes of a seed
what will happen; `life`, `offers` and `farm` let it go wrong; `talks` is what the endpoints say; `witness` sees every
packet and compares it with `model`; `run` puts them together, and `__main__` runs many seeds.
"""
