"""The loop and what it is made of: ring, chain, fan-out, session."""
