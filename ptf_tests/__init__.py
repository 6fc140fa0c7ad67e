"""Packets in, packets out: the pipeline on any target, with the Packet Test Framework (https://github.com/p4lang/ptf).

`run`       starts a switch with ports of its own, and PTF's runner against it
`client`    the controller of these tests
`harness`   what all cases have in common: the verbs in which they are written
`packets`   the packets that they send
`cases/`    one module per feature, one class per statement about it; nothing there knows what target it runs on
"""
