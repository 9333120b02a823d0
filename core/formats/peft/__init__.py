"""LoRA adapters in the layout of the PEFT library."""
