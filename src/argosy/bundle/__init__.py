"""From an image's config and a user's options to the runtime spec. Pure: no I/O, no clock, no environment."""
