"""The one training loop, and what it can learn: classes, values, options, answers, masked and next tokens."""
