"""Images as files: OCI layouts and Docker's archives, read and written as folders, tar files and streams."""
