"""What comes in: files and the inputs of a command."""
