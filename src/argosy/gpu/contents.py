"""What an NVIDIA driver consists of, by the capability that needs it: tables.

A capability is a word of NVIDIA_DRIVER_CAPABILITIES. Names without a version:
the file is NAME.so.VERSION with the version of the driver.
Source: libnvidia-container src/nvc_info.c and nvidia-container-toolkit pkg/nvcdi.
"""

from __future__ import annotations

#: All capabilities in the order in which they are written.
CAPABILITIES = ("compute", "utility", "graphics", "video", "display", "ngx", "compat32")
DEFAULT_CAPABILITIES = ("utility", "compute")

_UTILITY = ("libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq")
_COMPUTE = (
    "libcuda",
    "libcudadebugger",
    "libnvidia-opencl",
    "libnvidia-gpucomp",
    "libnvidia-ptxjitcompiler",
    "libnvidia-fatbinaryloader",
    "libnvidia-allocator",
    "libnvidia-compiler",
    "libnvidia-pkcs11",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-nvvm",
    "libnvidia-tileiras",
)
_VIDEO = ("libvdpau_nvidia", "libnvidia-encode", "libnvidia-opticalflow", "libnvcuvid")
_GRAPHICS = (
    "libnvidia-eglcore",
    "libnvidia-glcore",
    "libnvidia-tls",
    "libnvidia-glsi",
    "libnvidia-fbc",
    "libnvidia-ifr",
    "libnvidia-rtcore",
    "libnvidia-gpucomp",
    "libnvidia-allocator",
    "libnvidia-vulkan-producer",
    "libnvoptix",
    "libGLX_nvidia",
    "libEGL_nvidia",
    "libGLESv2_nvidia",
    "libGLESv1_CM_nvidia",
    "libnvidia-glvkspirv",
    "libnvidia-cbl",
)

#: {capability: base names of libraries}
LIBRARIES: dict[str, tuple[str, ...]] = {
    "utility": _UTILITY,
    "compute": _COMPUTE,
    "video": _VIDEO + _COMPUTE,
    "graphics": _GRAPHICS,
    "display": _GRAPHICS,
    "ngx": ("libnvidia-ngx",),
    "compat32": (),
}
#: Names that the image's Mesa or GLVND may also have: taken only when they need one of NVIDIA's own (old drivers).
AMBIGUOUS_LIBRARIES = frozenset({"libGL", "libEGL", "libGLESv1_CM", "libGLESv2"})
OWN_GRAPHICS_CORES = ("libnvidia-glcore", "libnvidia-eglcore")
#: Parts of the X server and of desktop programs; never in a container.
LEFT_OUT = frozenset(
    {"libnvidia-gtk2", "libnvidia-gtk3", "libnvidia-wayland-client", "libnvidia-wfb", "libglx", "libglxserver_nvidia"}
)
#: A library that no table knows comes along with these: a newer driver's parts must not be missing.
CAPABILITIES_OF_UNKNOWN = frozenset({"compute", "graphics", "video", "display"})
#: {capability: patterns (fnmatch) of libraries with a version of their own}
UNVERSIONED_LIBRARIES: dict[str, tuple[str, ...]] = {
    "compute": ("libnvidia-nvvm70.so.*",),
    "graphics": tuple(f"libnvidia-egl-{name}.so.*.*" for name in ("gbm", "wayland", "wayland2", "xcb", "xlib")),
}

#: {capability: programs}
BINARIES: dict[str, tuple[str, ...]] = {
    "utility": ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nv-fabricmanager"),
    "compute": ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server", "nvidia-imex", "nvidia-imex-ctl"),
}

#: {capability: files; looked for in /etc, then in the data folders; at /etc in the container}
ETC_FILES: dict[str, tuple[str, ...]] = {
    "compute": ("OpenCL/vendors/nvidia.icd",),
    "graphics": (
        "vulkan/icd.d/nvidia_icd.json",
        "vulkan/icd.d/nvidia_layers.json",
        "vulkan/implicit_layer.d/nvidia_layers.json",
        "vulkan/icd.d/nvidia_icd.x86_64.json",
        "vulkan/icd.d/nvidia_icd.aarch64.json",
    ),
}
#: The same, at /usr/share in the container.
SHARE_FILES: dict[str, tuple[str, ...]] = {
    "graphics": (
        "glvnd/egl_vendor.d/10_nvidia.json",
        "egl/egl_external_platform.d/15_nvidia_gbm.json",
        "egl/egl_external_platform.d/10_nvidia_wayland.json",
        "egl/egl_external_platform.d/09_nvidia_wayland2.json",
        "egl/egl_external_platform.d/20_nvidia_xcb.json",
        "egl/egl_external_platform.d/20_nvidia_xlib.json",
        "nvidia/nvoptix.bin",
    ),
}
DATA_FOLDERS = ("/etc", "/usr/local/share", "/usr/share")

#: {capability: sockets and folders of services, in the first of SOCKET_FOLDERS that has them}
SOCKETS: dict[str, tuple[str, ...]] = {
    "utility": ("nvidia-persistenced/socket", "nvidia-fabricmanager/socket"),
}
SOCKET_FOLDERS = ("/run", "/var/run")
MPS_FOLDER = "/tmp/nvidia-mps"

#: {base name: links beside it, as (path relative to its folder, target)}; {version} is the driver's
FIXED_LINKS: dict[str, tuple[tuple[str, str], ...]] = {
    "libcuda": (("libcuda.so", "libcuda.so.1"),),  # always: many programs load the bare name
    "libGLX_nvidia": (("libGLX_indirect.so.0", "libGLX_nvidia.so.{version}"),),
    "libnvidia-opticalflow": (("libnvidia-opticalflow.so", "libnvidia-opticalflow.so.1"),),
    "libnvidia-allocator": (("gbm/nvidia-drm_gbm.so", "../libnvidia-allocator.so.1"),),
    "libnvidia-vulkan-producer": (("libnvidia-vulkan-producer.so", "libnvidia-vulkan-producer.so.{version}"),),
}
#: Libraries that are loaded from a folder of their own beside the others.
SUBFOLDERS = {"libvdpau_nvidia": "vdpau"}

#: Search order under the driver root; toolkit's list. What is found in none of these is looked up in ld.so.cache.
LIBRARY_FOLDERS = tuple(
    folder
    for base in ("/usr/lib64", "/usr/lib/{triplet}", "/lib64", "/lib/{triplet}")
    for folder in (base, *((f"{base}/nvidia/current",) if "triplet" in base else ()))
)
LIBRARY_FOLDERS_32 = ("/usr/lib/{triplet}", "/usr/lib32", "/usr/lib", "/lib/{triplet}", "/lib32", "/lib")
#: Looked at last: where a driver that is no package is mounted (nvidia-docker's old volume, GKE, NixOS, Talos).
HOSTED_FOLDERS = (
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/home/kubernetes/bin/nvidia/lib64",
    "/run/opengl-driver/lib",
    "/usr/local/glibc/usr/lib",
)
BINARY_FOLDERS = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/lib/nvidia/current",
    "/usr/local/nvidia/bin",
    "/home/kubernetes/bin/nvidia/bin",
    "/run/current-system/sw/bin",
)
FIRMWARE_FOLDERS = (
    "/lib/firmware/updates/{release}",
    "/lib/firmware/updates",
    "/lib/firmware/{release}",
    "/lib/firmware",
)


def names_for(table: dict[str, tuple[str, ...]], capabilities: frozenset[str]) -> tuple[str, ...]:
    """The table's names for these capabilities; `display` has what `graphics` has."""
    wanted = capabilities | ({"graphics"} if "display" in capabilities else set())
    return tuple(dict.fromkeys(name for key, names in table.items() if key in wanted for name in names))
