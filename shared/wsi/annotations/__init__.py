"""Annotation files of whole slides: the outlines that people drew, (x, y) in level-0 pixels."""
