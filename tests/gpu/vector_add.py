"""A whole CUDA computation through the driver's own interface, with no toolkit: the sum of two vectors.

Run by test_real_gpu.py in a child whose LD_LIBRARY_PATH names what would be injected.
Prints «GPUs N» and «OK», or the call that failed. It needs libcuda and, for the text
of the program (PTX), the driver's compiler; so both came along if it ends well.
"""

import ctypes
import sys

COUNT = 1 << 20
PTX = b"""
.version 7.0
.target sm_50
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c) {
  .reg .b32 %r<5>; .reg .b64 %d<8>; .reg .f32 %f<4>;
  ld.param.u64 %d1, [a]; ld.param.u64 %d2, [b]; ld.param.u64 %d3, [c];
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
  mad.lo.s32 %r4, %r1, %r2, %r3;
  mul.wide.s32 %d4, %r4, 4;
  add.s64 %d5, %d1, %d4; add.s64 %d6, %d2, %d4; add.s64 %d7, %d3, %d4;
  ld.global.f32 %f1, [%d5]; ld.global.f32 %f2, [%d6];
  add.f32 %f3, %f1, %f2;
  st.global.f32 [%d7], %f3;
  ret;
}
\0"""

cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> None:
    status = getattr(cuda, name)(*arguments)
    if status:
        sys.exit(f"{name} returned {status}")


call("cuInit", 0)
count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
call("cuDeviceGetCount", ctypes.byref(count))
print("GPUs", count.value)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxSetCurrent", context)
module, function = ctypes.c_void_p(), ctypes.c_void_p()
call("cuModuleLoadData", ctypes.byref(module), PTX)
call("cuModuleGetFunction", ctypes.byref(function), module, b"add")
Vector = ctypes.c_float * COUNT
first, second, answer = Vector(*range(COUNT)), Vector(*range(COUNT, 0, -1)), Vector()
places = [ctypes.c_uint64() for _ in range(3)]
for place in places:
    call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(ctypes.sizeof(Vector)))
for place, vector in zip(places, (first, second), strict=False):
    call("cuMemcpyHtoD_v2", place, vector, ctypes.c_size_t(ctypes.sizeof(Vector)))
pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(place) for place in places))
call("cuLaunchKernel", function, COUNT // 256, 1, 1, 256, 1, 1, 0, None, pointers, None)
call("cuMemcpyDtoH_v2", answer, places[2], ctypes.c_size_t(ctypes.sizeof(Vector)))
if set(answer) != {float(COUNT)}:
    sys.exit("the sums are wrong")
print("OK")
