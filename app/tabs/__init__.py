"""The tabs of the page.

    events     how events answer: progress, a result, or one sentence
    examples   a dropdown that fills a text box
    sidebar    the models, and the way of fusing
    align      every model's tokens of a text, and the distributions at one of them
    fuse       who teaches each token, and other ways of fusing
    generate   one prompt, continued by every model and by all together
    train      a short training beside its baseline
    learn      a walk through the method

Each may import those above it.
"""
