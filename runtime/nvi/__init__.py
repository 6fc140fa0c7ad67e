"""NVI on P4: workloads on hosts that do not know each other, connected when they connect."""
