"""Knowledge fusion of large language models: align, carry over, fuse, train.

The rooms, in the order in which they may import one another (a test reads the imports):

    errors < records < config              data and checks only
    numerics                               sums over large vocabularies
    text_display                           text -> grapheme clusters, cells, signs

    the stages
      io          file                     -> texts; files written whole or not at all
      corpus      seed                     -> texts and questions of the toy domains
      zoo         name                     -> folder of an embedded model
      tokens      text                     -> Encoding
      align       Encoding x Encoding      -> Alignment; stretches that every model can read
      mapping     vocabulary x vocabulary  -> VocabMap, PrefixRelation
      models      texts                    -> NextTokenRows
      characters  NextTokenRows            -> NextCharacters
      project     NextTokenRows            -> ProjectedRows
      fuse        ProjectedRows            -> FusedRows
      evaluate    rows                     -> bits per byte, transfer cross-entropy
      cache       rows                     <-> shards on disk
      losses      logits x fused rows      -> nats of both parts
      baselines   weights                  -> merged weights

    reading < gather                       windows of texts, fused
    pipeline < cache.building, generate,   call the stages in order
               benchmark, compare
    train < runs                           a run's settings -> a trained model, in its own process
    reports < plots                        records -> JSON objects and tables; Plotly figures
    cli, __main__                          the command line
    zoo.build, zoo.__main__                how the embedded models were made

Stages take records and give records. They do not import one another, with these exceptions:
`mapping`, `models` and `characters` hold a `tokens.TextTokenizer`; `mapping` counts the pairs that
`align` finds; `models` finds embedded models through `zoo`; `project` asks a
`mapping.PrefixRelation` or `mapping.Transport`; what they write goes through `io`.
Nothing here imports gradio or `app`; `plots` alone imports plotly, when it draws.
"""

__version__ = "0.1.0"
