"""The web app: faces over `fusion_core`, which never imports anything from here.

    session              loaded models, limits and kept analyses: the only mutable state
    glyphs, views        records -> plain data for the page
    plots                records -> Plotly figures, for notebooks as well
    components           what Gradio has no component for
    tabs                 one file a tab: layout and handlers
    ui                   puts the tabs together

`views` and `plots` import neither gradio nor torch; numbers are computed in `fusion_core` only.
"""
