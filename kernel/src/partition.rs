//! Which partition a key belongs to: Kafka's murmur2.
