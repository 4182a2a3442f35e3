"""Knowledge fusion of large language models: align, carry over, fuse, train.

The rooms, in the order in which they may import one another (a test reads the imports):

    errors < records < config                  data and checks only
    tokens                                     text -> Encoding
    align   (Encoding x Encoding)              -> Alignment
    vocab   (vocabulary x vocabulary)          -> VocabMap
    models  (text)                             -> NextTokenRows
    project (NextTokenRows)                    -> ProjectedRows
    fuse    (ProjectedRows)                    -> FusedRows
    evaluate                                   -> bits per byte, transfer cross-entropy
    corpus, zoo                                the toy domains and the embedded models
    pipeline                                   calls the stages in order
    cli, __main__, zoo.build                   the faces

Stages take records and give records. They do not import one another, with these exceptions:
`vocab` and `models` hold a `tokens.TextTokenizer`, `models` finds embedded models through `zoo`,
and `project` reads a `vocab.VocabMap`. Nothing here imports gradio, plotly or `app`.
"""

__version__ = "0.1.0"
