"""crun or runc through their command line; we never write our own clone/pivot_root runtime."""
