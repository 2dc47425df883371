# A driver is there when the loader finds libcuda.so.1 and a device node exists; both come from the host at launch.
# Variables are this file's own, for it is sourced: they are unset again at the end.
argosy_library=
if /sbin/ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
    argosy_library=yes
else
    argosy_ifs=$IFS
    IFS=:
    for argosy_folder in ${LD_LIBRARY_PATH:-}; do
        case "$argosy_folder" in
            */compat | */compat/*) ;;
            *) [ -e "$argosy_folder/libcuda.so.1" ] && argosy_library=yes ;;
        esac
    done
    IFS=$argosy_ifs
fi
argosy_device=
for argosy_node in /dev/nvidiactl /dev/dxg /dev/nvgpu*; do
    [ -e "$argosy_node" ] && argosy_device=yes
done
if [ -z "$argosy_library" ] || [ -z "$argosy_device" ]; then
    export NVIDIA_CPU_ONLY=1
    {
        echo 'WARNING: The NVIDIA Driver was not detected. GPU functionality will not be available.'
        echo '   Start the container with a GPU: argosy run --gpus all …; on the host, argosy doctor explains what is missing.'
        echo
    } >&2
fi
unset argosy_library argosy_device argosy_folder argosy_node argosy_ifs
