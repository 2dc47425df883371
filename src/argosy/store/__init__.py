"""This host's disk: blobs, references, container records. Files are the database."""
