"""R runs on one frozen backbone: the bank, its slots, hooks and optimizer; runs out to PEFT and plain checkpoints."""
