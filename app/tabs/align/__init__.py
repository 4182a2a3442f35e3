"""The Align tab."""
