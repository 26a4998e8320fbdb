"""The runtime: batches, plan, tasks, epochs, workers, and the ports that connectors implement."""
