"""`make demo`: the main job once, from an empty folder to a GPU container, with the program that users have."""
