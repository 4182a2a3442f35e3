"""Covers against the sum over every token sequence; their telescoping sum; who cannot have them.

That a row at a token's boundary of the whole text knows what follows is the partial-token problem:
huggingface/transformers#21999 is not needed to see it, any prompt that ends within a word is.
"""
