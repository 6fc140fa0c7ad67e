# SPDX-License-Identifier: Apache-2.0
"""Print the targets of this machine, one per line, for the Makefile."""

from nvi.emulation.targets import available

print("\n".join(available()))
