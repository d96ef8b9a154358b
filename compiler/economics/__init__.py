"""What an inference costs: estimates with their origin, queues, prices, loads, carbon."""
