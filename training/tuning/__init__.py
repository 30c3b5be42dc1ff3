"""Fine-tuning: conversations as train batches with a loss on their answers, low-rank adapters, and their export."""
