"""The protobuf messages of P4Runtime, as `finsy.proto` has generated them: the one family of stubs that we use."""

from finsy.proto import U128, p4i, p4r, rpc_code, rpc_status

__all__ = ["U128", "p4i", "p4r", "rpc_code", "rpc_status"]
