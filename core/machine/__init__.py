"""What the machine is and has: processor, devices, memory."""
