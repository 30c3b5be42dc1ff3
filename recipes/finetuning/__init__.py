"""Fine-tuning as a part of a run: examples, numbers, training, export."""
