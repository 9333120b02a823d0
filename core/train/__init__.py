"""Training: from scratch, full fine-tuning and LoRA, in one loop."""
