"""The Fuse tab.

    view       an analysis and a comparison -> winners, tables
    component  the drawing of it
    layout     components and events

Each may import those above it.
"""
