"""The NVIDIA driver of this host: found under injectable roots, turned into edits of a container."""
