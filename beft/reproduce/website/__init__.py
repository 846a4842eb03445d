"""The website: notebooks, figures, records and documents as pages of plain files, made by `build.build`.

nbconvert makes it: Jupyter keeps it, it shows saved outputs as they are, and every installation of beft has it with its
parts (jinja2, mistune, Pygments); latex2mathml, all that is added, turns formulas into MathML, which browsers draw.
"""
