"""The Train tab.

    curves     metrics -> figures and the table of before and after
    view       a training -> what the page shows of it
    fields     the form
    component  the drawing of it
    page       answers of events
    layout     components and events

Each may import those above it.
"""
