"""Layers: tar streams to and from folders and indexes.

`entry` and `archive` read, `writer` and `sink` write, `compression` wraps both;
`apply` and `erofs` turn a layer into something the kernel can mount, `diff` turns a
folder into a layer.
"""
