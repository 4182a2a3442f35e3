"""The Align tab.

    view       an analysis -> the score
    cards      an analysis -> the distributions at one token
    component  the drawing of both
    layout     components and events

Each may import those above it.
"""
