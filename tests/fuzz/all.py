"""Every format that comes from outside."""

from fuzz import checkpoints, pictures, tables, texts

FORMATS = [*checkpoints.FORMATS, *texts.FORMATS, *tables.FORMATS, *pictures.FORMATS]
