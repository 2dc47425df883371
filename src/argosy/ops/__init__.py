"""One module a verb: plain functions that take what they use and know no terminal."""
