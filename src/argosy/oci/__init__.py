"""Values of the OCI specifications. No I/O, no clock, no environment."""
