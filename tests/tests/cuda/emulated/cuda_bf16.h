// A stand-in for CUDA's header: plans move no elements.
#pragma once

struct __nv_bfloat16 {
    unsigned short bits;
};
