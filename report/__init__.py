"""Pages and pictures of a map, for people.

`page.write_report` writes one self-contained HTML page, `plot.plot` draws on matplotlib. Both stand on the
same two questions, each with a file of its own: how an input's axes are read (`layouts`), and what its
entries and the outputs are called (`names`). `content` gathers what there is to say as plain values, `words`
says it, `maps` and `charts` draw it for the page, and `templates/` arrange it.
"""
