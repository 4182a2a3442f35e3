"""Files: texts and tables read from them, and whatever is written, whole or not at all."""
