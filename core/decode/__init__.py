"""The decode engine: prefill, decode steps, sampling, stopping, beams."""
