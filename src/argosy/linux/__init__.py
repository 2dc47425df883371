"""The kernel: system calls, mounts, processes, namespaces and what this host offers."""
