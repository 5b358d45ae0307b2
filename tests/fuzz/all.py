"""Every format that comes from outside."""

from fuzz import checkpoints, pictures, stored, tables, texts

FORMATS = [*checkpoints.FORMATS, *texts.FORMATS, *tables.FORMATS, *stored.FORMATS, *pictures.FORMATS]
