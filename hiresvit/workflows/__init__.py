"""The order of steps: each function here is one thing that a user asks for."""
