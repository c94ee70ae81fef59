"""What is known of destinations, from near to far: ready replies, entries in memory, rows on disk."""
