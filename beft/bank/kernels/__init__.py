"""What a bank's training steps do on a GPU in one kernel each, by Triton, which comes with torch's builds for CUDA."""
