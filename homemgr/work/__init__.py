"""What a worker process does: one module for each verb, synchronous, no state between jobs."""
