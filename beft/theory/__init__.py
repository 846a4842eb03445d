"""The mathematics of the three biases, and the scores that rank them, without a trainer."""
