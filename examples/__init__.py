"""Examples that run, each a module with a ``topology``; the tests run them too."""
