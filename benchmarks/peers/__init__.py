"""The same jobs in other engines, beside riverrun, on one Kafka and in one run."""
