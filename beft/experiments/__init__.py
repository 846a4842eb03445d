"""Which runs are missing, and running them: in banks, in this process or on a cluster."""
