"""The Generate tab.

    view       batches of steps -> lines for the page
    component  the drawing of them
    layout     components and events

Each may import those above it.
"""
