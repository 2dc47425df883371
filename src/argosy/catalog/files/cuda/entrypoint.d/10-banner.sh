# The banner, for people only: whoever reads this program's output gets the command's and nothing else.
if [ -t 1 ]; then
    printf '\n== CUDA %s ==\n\n' "$CUDA_VERSION"
    printf 'Built by Argosy from public packages. The CUDA parts are NVIDIA software under\n'
    printf 'the terms in /NGC-DL-CONTAINER-LICENSE.\n\n'
fi
