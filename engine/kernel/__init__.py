"""The kernel plane: the seats of the data plane in native code, see ``kernel/``."""
