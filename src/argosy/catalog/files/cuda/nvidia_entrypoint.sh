#!/bin/sh
# Entry point of the CUDA images: shows or sources the parts in entrypoint.d by name, then becomes the command.
for part in /opt/nvidia/entrypoint.d/*; do
    case "$part" in
        *.txt) cat "$part" ;;
        *.sh) . "$part" ;;
    esac
done
if [ "$#" -eq 0 ]; then
    exec /bin/bash
fi
exec "$@"
