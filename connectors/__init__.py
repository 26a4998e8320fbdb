"""Where records come from and go to: logs (Kafka, embedded) and the codecs of their values."""
