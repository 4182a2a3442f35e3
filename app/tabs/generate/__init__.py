"""The Generate tab.

    view     batches of steps -> lines for the page
    layout   components and events

Each may import those above it.
"""
