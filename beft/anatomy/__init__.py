"""Where query, key and value live in a transformer: their sites by architecture, the head, the proof about b_k."""
